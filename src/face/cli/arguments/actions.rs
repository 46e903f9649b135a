//! The commands as the command line has them, with the texts that teach them.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Make a backup
    #[command(
        long_about = "Make a backup of one database.\n\n\
            Nothing is visible in the store until the whole archive was read, checked and stored; a run that fails, \
            is stopped or dies leaves no backup behind.",
        after_long_help = "Examples:\n  \
            DB_PASSWORD=… pgstow backup --database-url postgres://reader@db.example/shop\n  \
            pgstow backup --secret-id prod/shop --store s3://acme-backups/pg --store /mnt/copy\n  \
            pgstow backup --compress zstd:9 --retention daily=7,weekly=4,monthly=12 --json"
    )]
    Backup {
        /// What kind of backup: full
        #[arg(long, value_name = "KIND", default_value = "full", hide_default_value = true)]
        kind: String,
        /// Who started it, for the manifest: schedule, manual or cli
        #[arg(long, value_name = "WHO", default_value = "cli", hide_default_value = true)]
        trigger: String,
        /// What asked for it, for the manifest: given again within two days, the backup is not made twice
        #[arg(long, value_name = "ID")]
        event_id: Option<String>,
        /// The database to back up, where the source names another one or none
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// List the backups in the store, newest first
    #[command(
        long_about = "List the backups in the store, newest first.\n\n\
            Everything comes from the store itself, by one listing and one request per backup. The ids are those that \
            other commands take. A backup whose manifest is damaged, foreign or of a newer pgstow stands in the list \
            with what is wrong; folders without a manifest are not backups: `pgstow status` speaks of them. If the \
            first store cannot be reached, the next one answers.",
        after_long_help = "Examples:\n  \
            pgstow list --store s3://acme-backups/pg\n  \
            pgstow list --database shop --json | jq -r '.backups[0].id'"
    )]
    List {
        /// Of this database alone
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Say whether all is well, and what a person should do
    #[command(
        long_about = "Say whether all is well, and what a person should do.\n\n\
            Shows the settings without secrets, the schedule where it is known, the last good backup of each \
            database and its age, and of each store: whether it can be reached, what the backups take, room on the \
            disk, lifecycle rules that are missing or differ, leases, uploads in progress, backups that lack a file, \
            and what killed runs have left. The database itself is not asked; nothing is written.\n\n\
            Exit code 0 when all is well, 1 when something needs a person: no backup yet, the last good one older \
            than --max-age, a store out of reach, a damaged backup.",
        after_long_help = "Examples:\n  \
            pgstow status --store s3://acme-backups/pg --max-age 26h\n  \
            pgstow status --database shop --json | jq -r '.problems[]'"
    )]
    Status {
        /// Of this database alone
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Remove the backups that the retention no longer keeps, where no lifecycle rules do it
    #[command(
        alias = "cleanup",
        long_about = "Remove the backups that the retention no longer keeps.\n\n\
            For folders, which have no lifecycle rules; in a bucket nothing is removed, since its rules do that, and \
            only the plan is shown, unless --allow-delete is given, for stores that know no such rules, with a key \
            that may delete. A backup goes when it is older than its tier's days. The newest --keep-last good \
            ones of each database stay whatever their age, so the last good one never goes. Good is a backup that has \
            all its files and was not found damaged. A backup whose manifest cannot be read stays. Files that pgstow \
            did not write stay, and so does the folder that they are in. What a killed run has left goes after two \
            days, unless a run is at work.\n\n\
            The manifest is removed first: a prune that is interrupted leaves no half backup, and the next one \
            finishes its work.",
        after_long_help = "Examples:\n  \
            pgstow prune --dry-run --store /srv/backups --retention daily=7,weekly=4,monthly=12\n  \
            pgstow prune --store /srv/backups --retention 30d --keep-last 3 --verified-only"
    )]
    Prune {
        /// Print every backup with the reason why it stays or goes, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Keep the newest --keep-last verified backups too, whatever their age
        #[arg(long)]
        verified_only: bool,
        /// Delete in buckets too: for those that have no lifecycle rules, with a key that may delete
        #[arg(long)]
        allow_delete: bool,
        /// Of this database alone
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Fetch a backup's archive as one file for stock pg_restore
    #[command(
        long_about = "Fetch a backup's archive as one file for stock pg_restore.\n\n\
            The bytes are held against the manifest's SHA-256 as they come; then the table of contents with the \
            offsets is laid over the head, so that pg_restore -j and -t can seek in the file. It gets its name when \
            all of it is there and on the disk. A run that was interrupted leaves .<name>.<time>.partial, with which \
            the same command goes on. SHA256SUMS beside the file gets its digest, and that of the object as a comment.",
        after_long_help = "Examples:\n  \
            pgstow download latest --store s3://acme-backups/pg --database shop\n  \
            pgstow download shop/20260131T040500Z-full -o /restore/shop.dump && pg_restore -j 4 -d shop \
            /restore/shop.dump"
    )]
    Download {
        /// An id as `pgstow list` prints it, or latest
        #[arg(value_name = "BACKUP")]
        backup: String,
        /// The file, or the folder for it [default: the archive's own name, here]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Whose latest, where the source names another database or none
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// Bit for bit as in the store: do not lay the offsets in
        #[arg(long)]
        as_stored: bool,
        /// Replace a file that is there already
        #[arg(long)]
        force: bool,
        /// Refuse the backup unless its manifest has this SHA-256, which the backup's report says
        #[arg(long, value_name = "SHA256")]
        expect_manifest: Option<String>,
    },
    /// Try everything that a backup needs, and say what to mend
    #[command(
        alias = "test",
        long_about = "Try everything that a backup needs, and say what to mend.\n\n\
            The settings, the secret, the way to the database step by step (name, port, login, encryption), what the \
            role may not read, PostgreSQL's programs, clocks; and each store with a probe that is written, read back \
            and removed: conditions, checksums, tags, lifecycle rules, room. No backup is made and no message sent. \
            A check that fails does not stop those that do not depend on it.\n\n\
            Exit code 0 when a backup can be made, else that of the first failure.",
        after_long_help = "Examples:\n  \
            pgstow doctor --secret-id prod/shop --store s3://acme-backups/pg\n  \
            pgstow doctor --json | jq -r '.checks[] | select(.state != \"ok\") | .detail'"
    )]
    Doctor,
    /// Show or install the bucket's lifecycle rules
    #[command(
        long_about = "Show or install the bucket's lifecycle rules.\n\n\
            Old backups expire by the bucket's own rules, one for each tier, so that the task that writes backups \
            needs no permission to delete any. The newest good backups bear a tag that no rule matches: when backups \
            stop, the last good one stays.",
        after_long_help = "Examples:\n  \
            pgstow retention show --store s3://acme-backups/pg --retention daily=7,weekly=4,monthly=12\n  \
            pgstow retention apply --store s3://acme-backups/pg --retention 30d",
        subcommand_required = true,
        arg_required_else_help = false
    )]
    Retention {
        #[command(subcommand)]
        action: RetentionAction,
    },
    /// Check every stored byte of a backup, or restore it into a throwaway server and compare
    #[command(
        long_about = "Check every stored byte of a backup against its manifest: each file's digest, each table's rows and \
            digest. Nothing is changed but verification.json, which keeps the result beside the backup.\n\n\
            With --drill the backup is also restored, by pgstow's own restore, into a throwaway server on this machine, \
            dumped again and compared: tables, sequences, large objects, schema.",
        after_long_help = "Examples:\n  \
            pgstow verify latest --database shop\n  \
            pgstow verify shop/20250131T040500Z-full --drill\n  \
            pgstow verify --all --since 7d --json\n\n\
            Exit code 40 (INTEGRITY) when something differs."
    )]
    Verify {
        /// The backup: an exact id as `list` prints it, or latest
        #[arg(value_name = "BACKUP", required_unless_present = "all")]
        backup: Option<String>,
        /// Every backup in the store
        #[arg(long, conflicts_with = "backup")]
        all: bool,
        /// With --all: those made since then, as 7d, 12h, 2025-01-31 or a whole timestamp
        #[arg(long, value_name = "WHEN", requires = "all")]
        since: Option<String>,
        /// Restore it into a throwaway server, dump it again and compare
        #[arg(long)]
        drill: bool,
        /// Whose backups, where the store holds several databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// Refuse the backup unless its manifest has this SHA-256, which the backup's report says
        #[arg(long, value_name = "SHA256", conflicts_with = "all")]
        expect_manifest: Option<String>,
    },
    /// Restore a backup, or some of its tables, into a database
    #[command(
        long_about = "Restore a backup into a database, straight from the store: no local disk is needed.\n\n\
            Before anything is changed, the target's version, privileges, roles, extensions and contents are checked, and \
            the backup's own consistency. Every table's digest is checked as its rows pass; a table that differs is not \
            loaded. A target that holds objects is refused unless --clean is given.",
        after_long_help = "Examples:\n  \
            pgstow restore latest --target postgres://admin@db.example/shop_restored --create --jobs 4\n  \
            pgstow restore shop/20250131T040500Z-full --target postgres://admin@db.example/shop --table public.orders\n  \
            pgstow restore latest --target postgres://admin@db.example/shop --table public.orders --into yesterday\n  \
            pgstow restore latest --target postgres://admin@db.example/shop --clean --dry-run\n\n\
            The target's password is best given in BACKUP_TARGET_PASSWORD, or the whole URL in BACKUP_TARGET_URL: \
            arguments are visible to other users of the machine."
    )]
    Restore {
        /// The backup: an exact id as `list` prints it, or latest
        #[arg(value_name = "BACKUP")]
        backup: String,
        /// The database to fill: postgres://user@host:5432/name [BACKUP_TARGET_URL]
        #[arg(long, value_name = "URL")]
        target: Option<String>,
        /// Only this table, with its data, indexes and constraints; repeat it for more
        #[arg(long = "table", value_name = "SCHEMA.TABLE")]
        tables: Vec<String>,
        /// Make copies of these tables in this schema (or, of one table, by this name) and leave what is there alone
        #[arg(long, value_name = "SCHEMA[.NAME]", requires = "tables")]
        into: Option<String>,
        /// Rows alone, into tables that are there
        #[arg(long, requires = "tables")]
        data_only: bool,
        /// Make the target database first
        #[arg(long)]
        create: bool,
        /// Remove what stands in the way first: the objects that the backup holds, or with --create the database
        #[arg(long)]
        clean: bool,
        /// With --create --clean: end other sessions in the database that is replaced
        #[arg(long, requires = "clean")]
        force: bool,
        /// With --clean: do not read the backup's bytes once before anything is removed
        #[arg(long)]
        no_verify: bool,
        /// When all is there, read every table again and compare it with the backup; for --table that is the default
        #[arg(long, conflicts_with = "no_check")]
        check: bool,
        /// With --table: do not compare the rows with the backup
        #[arg(long)]
        no_check: bool,
        /// Go on past what cannot be made or loaded, report each, and end with exit code 4 (PARTIAL)
        #[arg(long)]
        keep_going: bool,
        /// All in one transaction, over one session: what fails, however late, leaves the target as it was
        #[arg(long)]
        single_transaction: bool,
        /// Make the backup's roles first, as far as they are not there
        #[arg(long)]
        globals: bool,
        /// With --globals: also SUPERUSER, CREATEROLE, REPLICATION, BYPASSRLS, and memberships in roles that are there
        #[arg(long)]
        globals_privileged: bool,
        /// Leave ownership to the role that restores
        #[arg(long)]
        no_owner: bool,
        /// Leave out grants
        #[arg(long, visible_alias = "no-acl")]
        no_privileges: bool,
        /// Put everything into the target's default tablespace
        #[arg(long)]
        no_tablespaces: bool,
        /// Leave out comments
        #[arg(long)]
        no_comments: bool,
        /// Leave out publications
        #[arg(long)]
        no_publications: bool,
        /// Leave out subscriptions
        #[arg(long)]
        no_subscriptions: bool,
        /// Leave out what is of this kind, or of this kind and name, with what needs it; with --clean the target keeps it; repeat it for more
        #[arg(long, value_name = "KIND[:NAME]")]
        exclude: Vec<String>,
        /// A moment to recover to: needs incremental backups
        #[arg(long, value_name = "RFC3339")]
        to_time: Option<String>,
        /// Print what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Refuse the backup unless its manifest has this SHA-256, which the backup's report says
        #[arg(long, value_name = "SHA256")]
        expect_manifest: Option<String>,
        /// Whose latest, where the store holds several databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Make a key pair that signs backups
    #[command(
        long_about = "Make a key pair that signs backups, in minisign's format: FILE holds the secret key, FILE.pub the \
            public one. Nothing is replaced. With BACKUP_SIGN_KEY_PASSWORD (or a file named by \
            BACKUP_SIGN_KEY_PASSWORD_FILE) the secret key is encrypted.\n\n\
            Whoever can write to the store can change a backup and all the digests in it, but cannot sign it. Give \
            the secret key to what makes and verifies backups (BACKUP_SIGN_KEY), and the public one to what restores \
            (BACKUP_VERIFY_KEYS); keep neither in the store.",
        after_long_help = "Examples:\n  \
            pgstow keygen /etc/pgstow/sign.key\n  \
            pgstow backup --sign-key /etc/pgstow/sign.key --store s3://acme-backups/pg\n  \
            pgstow restore latest --verify-key /etc/pgstow/sign.key.pub --target postgres://admin@db.example/shop\n  \
            minisign -Vm manifest.json -p sign.key.pub"
    )]
    Keygen {
        /// The file for the secret key
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the completion script for a shell
    #[command(after_long_help = "Examples:\n  \
            pgstow completions bash > /etc/bash_completion.d/pgstow\n  \
            pgstow completions zsh > ~/.zfunc/_pgstow\n  \
            pgstow completions fish > ~/.config/fish/completions/pgstow.fish")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
pub(super) enum RetentionAction {
    /// Print the rules that `apply` would install in a bucket without any, as JSON
    Show,
    /// Install the rules; those that are not pgstow's, or of a tier that the retention no longer has, stay as they are
    Apply,
}
