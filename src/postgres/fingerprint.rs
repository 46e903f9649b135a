//! A fingerprint of all definitions of a database: it changes if a dump of the definitions would.
//!
//! It is made from the rows of the catalogs themselves, without the columns that VACUUM, ANALYZE or a rewrite change.
//! Nothing is printed as SQL: that would take seconds for a few thousand tables.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::Session;
use crate::error::{Error, Result};

/// Relations that have definitions of their own: no temporary ones, and no parts of other relations.
const LASTING: &str = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND n.nspname !~ '^pg_(toast|temp)'";

/// A catalog, what counts of its rows, and which rows count. `x` is the row.
struct Part {
    catalog: &'static str,
    columns: &'static str,
    rows: &'static str,
}

const WHOLE: &str = "x::pg_catalog.text";
const MADE: &str = "x.oid >= 16384";

const PARTS: [Part; 41] = [
    Part {
        catalog: "pg_class",
        columns: "pg_catalog.concat_ws('|', x.oid, x.relname, x.relnamespace, x.reloftype, x.relowner, x.relam, x.reltablespace,
                  x.relkind, x.relpersistence, x.relrowsecurity, x.relforcerowsecurity, x.relreplident, x.relispartition,
                  x.reloptions::pg_catalog.text, x.relpartbound::pg_catalog.text, x.relacl::pg_catalog.text)",
        rows: "x.oid IN (SELECT lasting.oid FROM lasting) OR x.oid < 16384 AND x.relacl IS NOT NULL",
    },
    Part {
        catalog: "pg_attribute",
        columns: "pg_catalog.concat_ws('|', x.attrelid, x.attnum, x.attname, x.atttypid, x.atttypmod, x.attndims, x.attstorage,
                  x.attnotnull, x.atthasdef, x.attidentity, x.attgenerated, x.attislocal, x.attinhcount, x.attcollation,
                  x.attstattarget, x.attacl::pg_catalog.text, x.attoptions::pg_catalog.text, x.attfdwoptions::pg_catalog.text)",
        rows: "x.attnum > 0 AND NOT x.attisdropped AND x.attrelid IN (SELECT lasting.oid FROM lasting)",
    },
    Part {
        catalog: "pg_attrdef",
        columns: WHOLE,
        rows: "x.adrelid IN (SELECT lasting.oid FROM lasting)",
    },
    Part {
        catalog: "pg_constraint",
        columns: WHOLE,
        rows: "x.oid >= 16384 AND (x.conrelid = 0 OR x.conrelid IN (SELECT lasting.oid FROM lasting))",
    },
    Part {
        catalog: "pg_index",
        columns: "pg_catalog.concat_ws('|', x.indexrelid, x.indrelid, x.indnkeyatts, x.indisunique, x.indisprimary,
                  x.indisexclusion, x.indimmediate, x.indisclustered, x.indisvalid, x.indisreplident,
                  x.indkey::pg_catalog.text, x.indcollation::pg_catalog.text, x.indclass::pg_catalog.text,
                  x.indoption::pg_catalog.text, x.indexprs::pg_catalog.text, x.indpred::pg_catalog.text)",
        rows: "x.indrelid IN (SELECT lasting.oid FROM lasting)",
    },
    Part {
        catalog: "pg_inherits",
        columns: WHOLE,
        rows: "x.inhrelid IN (SELECT lasting.oid FROM lasting)",
    },
    Part {
        catalog: "pg_partitioned_table",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_rewrite",
        columns: WHOLE,
        rows: "x.ev_class IN (SELECT lasting.oid FROM lasting)",
    },
    Part {
        catalog: "pg_trigger",
        columns: WHOLE,
        rows: "x.tgrelid IN (SELECT lasting.oid FROM lasting)",
    },
    Part {
        catalog: "pg_policy",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_sequence",
        columns: WHOLE,
        rows: "x.seqrelid IN (SELECT lasting.oid FROM lasting)",
    },
    Part {
        catalog: "pg_foreign_table",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_type",
        columns: "pg_catalog.concat_ws('|', x.oid, x.typname, x.typnamespace, x.typowner, x.typlen, x.typtype, x.typcategory,
                  x.typnotnull, x.typbasetype, x.typtypmod, x.typndims, x.typcollation, x.typdefault, x.typelem, x.typalign,
                  x.typstorage, x.typdelim, x.typinput::pg_catalog.oid, x.typoutput::pg_catalog.oid,
                  x.typreceive::pg_catalog.oid, x.typsend::pg_catalog.oid, x.typmodin::pg_catalog.oid,
                  x.typmodout::pg_catalog.oid, x.typacl::pg_catalog.text)",
        // Those of tables say no more than the tables.
        rows: "x.oid >= 16384 AND x.typrelid = 0 AND (x.typelem = 0 OR x.typtype <> 'b' OR x.typacl IS NOT NULL)
               AND x.typnamespace NOT IN (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname ~ '^pg_(toast|temp)')",
    },
    Part {
        catalog: "pg_enum",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_range",
        columns: WHOLE,
        rows: "x.rngtypid >= 16384",
    },
    Part {
        catalog: "pg_namespace",
        columns: WHOLE,
        rows: "x.nspname !~ '^pg_(toast|temp)'",
    },
    Part {
        catalog: "pg_proc",
        columns: WHOLE,
        rows: "x.oid >= 16384 OR x.proacl IS NOT NULL",
    },
    Part {
        catalog: "pg_aggregate",
        columns: WHOLE,
        rows: "x.aggfnoid::pg_catalog.oid >= 16384",
    },
    Part {
        catalog: "pg_operator",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_opclass",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_opfamily",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_amop",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_amproc",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_am",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_cast",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_collation",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_conversion",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_language",
        columns: WHOLE,
        rows: "x.oid >= 16384 OR x.lanacl IS NOT NULL",
    },
    Part {
        catalog: "pg_transform",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_extension",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_event_trigger",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_foreign_data_wrapper",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_foreign_server",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_user_mappings",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_ts_config",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_ts_dict",
        columns: WHOLE,
        rows: MADE,
    },
    Part {
        catalog: "pg_ts_config_map",
        columns: WHOLE,
        rows: "x.mapcfg >= 16384",
    },
    Part {
        catalog: "pg_statistic_ext",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_default_acl",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_seclabel",
        columns: WHOLE,
        rows: "true",
    },
    Part {
        catalog: "pg_description",
        columns: WHOLE,
        rows: "x.objoid >= 16384 OR x.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass",
    },
];

impl Session {
    /// Hex digits. `except`: the publications that do not count, because they are the backup's own.
    pub async fn definitions_fingerprint(&self, except: &[String]) -> Result<String> {
        let failed = |error| self.error("cannot read the definitions' fingerprint", &error);
        let row = self.client.query_one(&question(), &[&except]).await.map_err(failed)?;
        let sums: String = row.try_get(0).map_err(failed)?;
        if sums.is_empty() {
            return Err(Error::internal("the server gave no sums of its definitions"));
        }
        Ok(hex::encode(Sha256::digest(sums)))
    }
}

fn question() -> String {
    let mut question = format!("WITH lasting AS MATERIALIZED ({LASTING}) SELECT pg_catalog.concat_ws('/'");
    for Part { catalog, columns, rows } in &PARTS {
        sum(&mut question, &format!("pg_catalog.{catalog} x"), columns, rows);
    }
    // A sum needs no order, and md5 is refused by servers that run under FIPS.
    let ours = "x.pubname <> ALL ($1::pg_catalog.text[])";
    sum(&mut question, "pg_catalog.pg_publication x", WHOLE, ours);
    let from = "pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication x ON x.oid = r.prpubid";
    sum(&mut question, from, "r::pg_catalog.text", ours);
    let subscription = "pg_catalog.concat_ws('|', x.oid, x.subname, x.subowner, x.subenabled, x.subpublications::pg_catalog.text)";
    let here = "x.subdbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";
    sum(&mut question, "pg_catalog.pg_subscription x", subscription, here);
    question.push(')');
    question
}

/// Adds the sum over the rows of a catalog.
fn sum(question: &mut String, from: &str, columns: &str, rows: &str) {
    let _ = write!(
        question,
        ", (SELECT coalesce(pg_catalog.sum(pg_catalog.hashtextextended({columns} COLLATE pg_catalog.\"C\", 0)), 0)
           FROM {from} WHERE {rows})"
    );
}
