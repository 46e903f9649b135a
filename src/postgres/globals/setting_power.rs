//! What a setting of a role can do to a server.

use std::collections::BTreeSet;

/// Settings of a role that give it no power and load no code.
const HARMLESS: [&str; 112] = [
    "application_name",
    "array_nulls",
    "backend_flush_after",
    "bytea_output",
    "check_function_bodies",
    "client_connection_check_interval",
    "client_encoding",
    "client_min_messages",
    "constraint_exclusion",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "cursor_tuple_fraction",
    "datestyle",
    "default_statistics_target",
    "default_table_access_method",
    "default_tablespace",
    "default_text_search_config",
    "default_toast_compression",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "effective_io_concurrency",
    "enable_async_append",
    "enable_bitmapscan",
    "enable_distinct_reordering",
    "enable_gathermerge",
    "enable_group_by_reordering",
    "enable_hashagg",
    "enable_hashjoin",
    "enable_incremental_sort",
    "enable_indexonlyscan",
    "enable_indexscan",
    "enable_material",
    "enable_memoize",
    "enable_mergejoin",
    "enable_nestloop",
    "enable_parallel_append",
    "enable_parallel_hash",
    "enable_partition_pruning",
    "enable_partitionwise_aggregate",
    "enable_partitionwise_join",
    "enable_presorted_aggregate",
    "enable_self_join_elimination",
    "enable_seqscan",
    "enable_sort",
    "enable_tidscan",
    "extra_float_digits",
    "from_collapse_limit",
    "geqo",
    "geqo_effort",
    "geqo_generations",
    "geqo_pool_size",
    "geqo_seed",
    "geqo_selection_bias",
    "geqo_threshold",
    "gin_fuzzy_search_limit",
    "gin_pending_list_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "io_combine_limit",
    "jit",
    "jit_above_cost",
    "jit_inline_above_cost",
    "jit_optimize_above_cost",
    "join_collapse_limit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "logical_decoding_work_mem",
    "maintenance_io_concurrency",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "min_parallel_index_scan_size",
    "min_parallel_table_scan_size",
    "parallel_leader_participation",
    "parallel_setup_cost",
    "parallel_tuple_cost",
    "plan_cache_mode",
    "quote_all_identifiers",
    "random_page_cost",
    "recursive_worktable_factor",
    "row_security",
    "search_path",
    "seq_page_cost",
    "statement_timeout",
    "synchronize_seqscans",
    "synchronous_commit",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "temp_buffers",
    "temp_tablespaces",
    "timezone",
    "timezone_abbreviations",
    "transaction_timeout",
    "vacuum_buffer_usage_limit",
    "vacuum_cost_delay",
    "vacuum_cost_limit",
    "vacuum_cost_page_dirty",
    "vacuum_cost_page_hit",
    "vacuum_cost_page_miss",
    "work_mem",
    "xmlbinary",
    "xmloption",
];

/// Prefixes of settings of libraries that are no extensions, or that have another name than their extension.
const LIBRARIES: [&str; 12] = [
    "auth_delay",
    "auto_explain",
    "basebackup_to_shell",
    "basic_archive",
    "passwordcheck",
    "pgaudit",
    "pljava",
    "plperl",
    "pltcl",
    "pltclu",
    "plv8",
    "sepgsql",
];

/// What a setting of a role can do to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Might {
    Harmless,
    /// It hides a session from the log, switches constraints off, or belongs to a library.
    Power,
    /// It loads code into each of the role's sessions, or switches them to another role.
    Code,
}

/// `libraries`: prefixes of settings that a library of the server has, or may have. A setting with another prefix
/// (`app.tenant`) is only a value that the application's own functions read.
pub(super) fn might(setting: &str, libraries: &BTreeSet<String>) -> Might {
    let prefix = setting.split_once('.').map(|(prefix, _)| prefix);
    if prefix.is_some_and(|prefix| !LIBRARIES.contains(&prefix) && !libraries.contains(prefix)) {
        return Might::Harmless;
    }
    if HARMLESS.binary_search(&setting).is_ok() {
        return Might::Harmless;
    }
    let marks = [
        "librar",
        "_path",
        "provider",
        "_init",
        "start_proc",
        "_command",
        "vmoptions",
        "libjvm",
        "classpath",
    ];
    if marks.iter().any(|mark| setting.contains(mark)) || matches!(setting, "role" | "session_authorization") {
        Might::Code
    } else {
        Might::Power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_setting_might_do_is_known() {
        assert!(HARMLESS.is_sorted() && LIBRARIES.is_sorted());
        let libraries = ["pg_stat_statements", "cron"].map(str::to_owned).into();
        for (wanted, settings) in [
            (
                Might::Harmless,
                &[
                    "search_path",
                    "work_mem",
                    "enable_tidscan",
                    "parallel_tuple_cost",
                    "jit_above_cost",
                    "xmlbinary",
                    "app.tenant",
                    "myapp.feature.on",
                    "app.search_path",
                ][..],
            ),
            (
                Might::Power,
                &[
                    "log_statement",
                    "log_min_duration_statement",
                    "session_replication_role",
                    "pgaudit.log",
                    "auto_explain.log_analyze",
                    "pg_stat_statements.track",
                    "cron.timezone",
                    "plv8.execution_timeout",
                    "allow_system_table_mods",
                    "password_encryption",
                ],
            ),
            (
                Might::Code,
                &[
                    "role",
                    "session_authorization",
                    "session_preload_libraries",
                    "local_preload_libraries",
                    "dynamic_library_path",
                    "extension_control_path",
                    "jit_provider",
                    "plperl.on_init",
                    "plperl.on_plperlu_init",
                    "pltcl.start_proc",
                    "plv8.start_proc",
                    "pljava.vmoptions",
                ],
            ),
        ] {
            for setting in settings {
                assert_eq!(might(setting, &libraries), wanted, "{setting}");
            }
        }
    }
}
