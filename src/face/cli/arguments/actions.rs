//! The commands of the command line, with their help texts.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Make a backup
    #[command(
        long_about = "Make a backup of one database.\n\n\
            The backup becomes visible in the store only after the whole archive is read, checked and stored. A run \
            that fails, is stopped or is killed leaves no backup.",
        after_long_help = "Examples:\n  \
            DB_PASSWORD=… pgstow backup --database-url postgres://reader@db.example/shop\n  \
            pgstow backup --secret-id prod/shop --store s3://acme-backups/pg --store /mnt/copy\n  \
            pgstow backup --compress zstd:9 --retention daily=7,weekly=4,monthly=12 --json"
    )]
    Backup(BackupArguments),
    /// Start or stop increments, or show how they stand
    #[command(
        long_about = "Start or stop increments, or show how they stand.\n\n\
            Increments are what was changed since the last backup, read from the server's log. For that the database \
            needs two publications and a replication slot. `start` makes them, and the first full backup; `stop` drops \
            them, and leaves nothing on the server. As long as the slot is there, the server keeps the log that no \
            increment has stored yet: stop increments before you stop making them.\n\n\
            Exit code of status: 0 if no person has to act, 1 if a person has to.",
        after_long_help = "Examples:\n  \
            pgstow incremental start --store s3://acme-backups/pg\n  \
            pgstow incremental start --print-sql > for-the-owner.sql\n  \
            pgstow incremental status --json | jq -r '.problems[]'\n  \
            pgstow incremental stop",
        subcommand_required = true,
        arg_required_else_help = false
    )]
    Incremental {
        #[command(subcommand)]
        action: IncrementalAction,
    },
    /// List the backups in the store, newest first
    #[command(
        long_about = "List the backups in the store, newest first.\n\n\
            `list` asks only the store: one listing per database and one request per backup. Other commands take the \
            ids that it prints. If a manifest is damaged, foreign or written by a newer pgstow, the list shows that in \
            its place. A folder without a manifest is not a backup; `pgstow status` shows such folders. If the first \
            store cannot be reached, the next one answers.",
        after_long_help = "Examples:\n  \
            pgstow list --store s3://acme-backups/pg\n  \
            pgstow list --database shop --json | jq -r '.backups[0].id'"
    )]
    List {
        /// Only this database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Say whether a person has to act, and how
    #[command(
        long_about = "Say whether a person has to act, and how.\n\n\
            Shows the settings without secrets, the schedule if it is known, and the last good backup of each \
            database with its age. For each store it shows whether it can be reached, the size of the backups, free \
            space on the disk, lifecycle rules that are missing or differ, leases, uploads in progress, backups that \
            lack a file, and leftovers of killed runs. `status` asks no database and writes nothing.\n\n\
            Exit code 0: no person has to act. Exit code 1: a person has to act, because there is no backup yet, the \
            last good one is older than --max-age, a store cannot be reached, or a backup is damaged.",
        after_long_help = "Examples:\n  \
            pgstow status --store s3://acme-backups/pg --max-age 26h\n  \
            pgstow status --database shop --json | jq -r '.problems[]'"
    )]
    Status {
        /// Only this database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Remove the backups that the retention no longer keeps, in stores without lifecycle rules
    #[command(
        alias = "cleanup",
        long_about = "Remove the backups that the retention no longer keeps.\n\n\
            It is for folders, which have no lifecycle rules. In a bucket the bucket's rules remove backups, so \
            `prune` only shows its plan, unless you give --allow-delete: that is for stores without lifecycle rules, \
            with a key that may delete.\n\n\
            A backup goes when it is older than the time of its tier. The newest --keep-last good backups of each \
            database stay whatever their age, and at least one. A backup is good if it has all its files and was not \
            found damaged. A backup with an unreadable manifest stays. Files that pgstow did not write stay, with \
            their folder. Leftovers of a killed run go after two days, unless a run is active.\n\n\
            `prune` removes the manifest first: if it is interrupted, no half backup is left, and the next `prune` \
            removes the rest.",
        after_long_help = "Examples:\n  \
            pgstow prune --dry-run --store /srv/backups --retention daily=7,weekly=4,monthly=12\n  \
            pgstow prune --store /srv/backups --retention 30d --keep-last 3 --verified-only"
    )]
    Prune {
        /// Print every backup and why it stays or goes, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Also keep the newest --keep-last verified backups, whatever their age
        #[arg(long)]
        verified_only: bool,
        /// Delete in buckets too: for stores without lifecycle rules, with a key that may delete
        #[arg(long)]
        allow_delete: bool,
        /// Only this database
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Show the transactions in the increments, to find the moment to restore to
    #[command(
        long_about = "Show the transactions in the increments: commit time, positions, transaction id, and how many \
            rows each inserted, updated and deleted in which tables.\n\n\
            Times are those of the source's clock, and need not have the order of the commits. BEFORE and AFTER are \
            positions for `restore --to-lsn`: with BEFORE everything is as it was before the transaction, with AFTER \
            the transaction is the last one. pgstow reads only the parts of the increments that can hold what is asked \
            for.",
        after_long_help = "Examples:\n  \
            pgstow changes --table public.orders --since 14:00\n  \
            pgstow changes --table 'public.orders*' --since '2025-01-31 14:00' --until '2025-01-31 14:10'\n  \
            pgstow changes --since 2h --json | jq -c '.transactions[] | select(.deletes > 1000)'"
    )]
    Changes(ChangesArguments),
    /// Fetch a backup's archive as one file for stock pg_restore
    #[command(
        long_about = "Fetch a backup's archive as one file for stock pg_restore.\n\n\
            pgstow compares the SHA-256 of the bytes with the manifest while it streams them. Then it overwrites the \
            start of the archive with the table of contents that has the offsets, so that pg_restore -j and -t can \
            seek in the file. The file gets its name when all of it is on the disk. An interrupted run leaves \
            .<name>.<time>.partial, and the same command continues it. SHA256SUMS beside the file gets the file's \
            digest, and the digest of the stored archive as a comment.",
        after_long_help = "Examples:\n  \
            pgstow download latest --store s3://acme-backups/pg --database shop\n  \
            pgstow download shop/20260131T040500Z-full -o /restore/shop.dump && pg_restore -j 4 -d shop \
            /restore/shop.dump"
    )]
    Download(DownloadArguments),
    /// Answer HTTP requests, and begin runs when they are due
    #[command(
        alias = "start-scheduler",
        long_about = "Answer HTTP requests, and begin runs when they are due.\n\n\
            One process in front of all other commands: the API, the paths of the older systems, live events, and the \
            scheduler, which goes by FULL_BACKUP_SCHEDULE, INCREMENTAL_BACKUP_SCHEDULE and CLEANUP_SCHEDULE. It ends \
            at SIGTERM or SIGINT, after the runs have cleaned up.",
        after_long_help = "Examples:\n  \
            pgstow serve --store /srv/backups\n  \
            BACKUP_API_TOKENS_FILE=tokens FULL_BACKUP_SCHEDULE='0 2 * * *' pgstow serve --listen 127.0.0.1:9000"
    )]
    Serve {
        #[command(subcommand)]
        action: Option<ServeAction>,
    },
    /// Try everything that a backup needs, and say how to correct what fails
    #[command(
        alias = "test",
        long_about = "Try everything that a backup needs, and say how to correct what fails.\n\n\
            `doctor` tries the settings, the secret, each step of the connection (name, port, login, encryption), \
            what the role may not read, PostgreSQL's programs and the clocks. It tries each store with a probe that \
            it writes, reads back and removes: conditions, checksums, tags, lifecycle rules, free space. It makes no \
            backup and sends no message. After a check fails, `doctor` continues with those that do not depend on \
            it.\n\n\
            The exit code is 0 if a backup can be made, else that of the first failure.",
        after_long_help = "Examples:\n  \
            pgstow doctor --secret-id prod/shop --store s3://acme-backups/pg\n  \
            pgstow doctor --json | jq -r '.checks[] | select(.state != \"ok\") | .detail'"
    )]
    Doctor,
    /// Show or install the bucket's lifecycle rules
    #[command(
        long_about = "Show or install the bucket's lifecycle rules.\n\n\
            The bucket's own rules, one for each tier, expire old backups, so the role that writes backups needs no \
            permission to delete. The newest good backups have a tag that no rule matches: if backups stop, the last \
            good one stays.",
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
        long_about = "Compare every stored byte of a backup with its manifest: the digest of each file, the rows and \
            digest of each table. `verify` writes the result beside the backup, in verification.json, and changes \
            nothing else.\n\n\
            With --drill, pgstow also restores the backup into a throwaway server on this machine, dumps the result \
            again and compares it: tables, sequences, large objects, schema.",
        after_long_help = "Examples:\n  \
            pgstow verify latest --database shop\n  \
            pgstow verify shop/20250131T040500Z-full --drill\n  \
            pgstow verify --all --since 7d --json\n\n\
            Exit code 40 (INTEGRITY) if something differs."
    )]
    Verify(VerifyArguments),
    /// Restore a backup, or some of its tables, into a database
    #[command(
        long_about = "Restore a backup into a database, straight from the store: it needs no local disk.\n\n\
            Before pgstow changes anything, it checks the target's version, privileges, roles, extensions and \
            contents, and the consistency of the backup. It checks the digest of every table while it loads the rows; \
            a table that differs is not loaded. If the target holds objects, pgstow refuses the restore unless you \
            give --clean.",
        after_long_help = "Examples:\n  \
            pgstow restore latest --target postgres://admin@db.example/shop_restored --create --jobs 4\n  \
            pgstow restore shop/20250131T040500Z-full --target postgres://admin@db.example/shop --table public.orders\n  \
            pgstow restore latest --target postgres://admin@db.example/shop --table public.orders --into yesterday\n  \
            pgstow restore latest --target postgres://admin@db.example/shop --clean --dry-run\n\n\
            Give the target's password in BACKUP_TARGET_PASSWORD, or the whole URL in BACKUP_TARGET_URL: other users \
            of the machine can see arguments."
    )]
    Restore(RestoreArguments),
    /// Make a key pair that signs backups
    #[command(
        long_about = "Make a key pair that signs backups, in minisign's format: FILE holds the secret key, FILE.pub \
            the public one. `keygen` replaces no file. With BACKUP_SIGN_KEY_PASSWORD (or the file in \
            BACKUP_SIGN_KEY_PASSWORD_FILE) it encrypts the secret key.\n\n\
            A person who can write to the store can change a backup and all its digests, but cannot sign it. Give the \
            secret key to the machines that make and verify backups (BACKUP_SIGN_KEY), and the public key to those \
            that restore (BACKUP_VERIFY_KEYS). Keep neither in the store.",
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

#[derive(Debug, Args)]
pub(super) struct BackupArguments {
    /// The kind of backup: full, or incremental: what was changed since the last one
    #[arg(long, value_name = "KIND", default_value = "full", hide_default_value = true)]
    pub(super) kind: String,
    /// Go on making increments until the program is stopped (with --kind incremental)
    #[arg(long)]
    pub(super) follow: bool,
    /// How often --follow makes an increment: 60s by default, 5s at the least
    #[arg(long, value_name = "SPAN", requires = "follow")]
    pub(super) every: Option<String>,
    /// What started it, for the manifest: schedule, manual or cli
    #[arg(long, value_name = "WHO", default_value = "cli", hide_default_value = true)]
    pub(super) trigger: String,
    /// The id of the event that asked for it: the same id within two days makes no second backup
    #[arg(long, value_name = "ID")]
    pub(super) event_id: Option<String>,
    /// The database to back up, instead of the one that the settings name
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ChangesArguments {
    /// Only transactions that changed this table; `*` stands for any text; repeat it for more
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    pub(super) tables: Vec<String>,
    /// Only commits from then on: 14:00, 2025-01-31 14:02:59 (local time), a timestamp with an offset, or 2h
    #[arg(long, value_name = "WHEN")]
    pub(super) since: Option<String>,
    /// Only commits up to then
    #[arg(long, value_name = "WHEN")]
    pub(super) until: Option<String>,
    /// At most so many transactions, the newest [default: 1000]
    #[arg(long, value_name = "NUMBER")]
    pub(super) limit: Option<usize>,
    /// The database, if the store holds increments of several
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DownloadArguments {
    /// An id as `pgstow list` prints it, or latest
    #[arg(value_name = "BACKUP")]
    pub(super) backup: String,
    /// The file to write, or the folder for it [default: the archive's own name, in the working folder]
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// With latest: the database, instead of the one that the settings name
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
    /// Write exactly the stored bytes, without the offsets in the table of contents
    #[arg(long)]
    pub(super) as_stored: bool,
    /// Replace an existing file
    #[arg(long)]
    pub(super) force: bool,
    /// Refuse the backup unless its manifest has this SHA-256, as in the report of the backup
    #[arg(long, value_name = "SHA256")]
    pub(super) expect_manifest: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The backup: an exact id as `list` prints it, or latest; latest by default with --chain, --to-time and --to-lsn
    #[arg(value_name = "BACKUP", required_unless_present_any = ["all", "chain", "to_time", "to_lsn"])]
    pub(super) backup: Option<String>,
    /// Every backup in the store
    #[arg(long, conflicts_with = "backup")]
    pub(super) all: bool,
    /// With --all: only the backups since then, as 7d, 12h, 2025-01-31 or a whole timestamp
    #[arg(long, value_name = "WHEN", requires = "all")]
    pub(super) since: Option<String>,
    /// Restore it into a throwaway server, dump it again and compare
    #[arg(long)]
    pub(super) drill: bool,
    /// Prove that the increments since the full backup before it lead exactly to it
    #[arg(long)]
    pub(super) chain: bool,
    /// With --drill: restore the database as it was at this time, from the full backup before it and the increments
    #[arg(long, value_name = "TIME", requires = "drill", conflicts_with_all = ["to_lsn", "all", "chain"])]
    pub(super) to_time: Option<String>,
    /// The same for a position in the server's log
    #[arg(long, value_name = "LSN", requires = "drill", conflicts_with_all = ["all", "chain"])]
    pub(super) to_lsn: Option<String>,
    /// The database, if the store holds backups of several
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
    /// Refuse the backup unless its manifest has this SHA-256, as in the report of the backup
    #[arg(long, value_name = "SHA256", conflicts_with = "all")]
    pub(super) expect_manifest: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    /// The backup: an exact id as `list` prints it, or latest
    #[arg(value_name = "BACKUP")]
    pub(super) backup: String,
    /// The database to fill: postgres://user@host:5432/name [BACKUP_TARGET_URL]
    #[arg(long, value_name = "URL")]
    pub(super) target: Option<String>,
    /// Only this table, with its data, indexes and constraints; repeat it for more
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    pub(super) tables: Vec<String>,
    /// Make copies of these tables in this schema (or one copy with this name); the existing tables stay as they
    /// are
    #[arg(long, value_name = "SCHEMA[.NAME]", requires = "tables")]
    pub(super) into: Option<String>,
    /// Restore only the rows, into existing tables
    #[arg(long, requires = "tables")]
    pub(super) data_only: bool,
    /// Create the target database first
    #[arg(long)]
    pub(super) create: bool,
    /// First remove the objects that the backup also holds, or with --create the whole database
    #[arg(long)]
    pub(super) clean: bool,
    /// End other sessions in the database that --create --clean replaces
    #[arg(long, requires = "clean")]
    pub(super) force: bool,
    /// With --clean: remove without verifying the backup's bytes first
    #[arg(long)]
    pub(super) no_verify: bool,
    /// At the end, read every table again and compare it with the backup; the default with --table
    #[arg(long, conflicts_with = "no_check")]
    pub(super) check: bool,
    /// With --table: do not compare the rows with the backup
    #[arg(long)]
    pub(super) no_check: bool,
    /// Continue after objects that the server refuses, report each, and end with exit code 4 (PARTIAL)
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Restore in one transaction, over one session: if any step fails, the target stays as it was
    #[arg(long)]
    pub(super) single_transaction: bool,
    /// First create the roles of the backup that the target lacks
    #[arg(long)]
    pub(super) globals: bool,
    /// With --globals: also SUPERUSER, CREATEROLE, REPLICATION, BYPASSRLS, and memberships in existing roles
    #[arg(long)]
    pub(super) globals_privileged: bool,
    /// Skip owners: the role that restores owns everything
    #[arg(long)]
    pub(super) no_owner: bool,
    /// Leave out grants
    #[arg(long, visible_alias = "no-acl")]
    pub(super) no_privileges: bool,
    /// Put everything into the target's default tablespace
    #[arg(long)]
    pub(super) no_tablespaces: bool,
    /// Leave out comments
    #[arg(long)]
    pub(super) no_comments: bool,
    /// Leave out publications
    #[arg(long)]
    pub(super) no_publications: bool,
    /// Leave out subscriptions
    #[arg(long)]
    pub(super) no_subscriptions: bool,
    /// Leave out objects of this kind (and name), with all that needs them; with --clean the target keeps them;
    /// repeatable
    #[arg(long, value_name = "KIND[:NAME]")]
    pub(super) exclude: Vec<String>,
    /// Restore the database as it was at this time: the newest full backup before it, and the changes that
    /// increments hold since
    #[arg(long, value_name = "TIME", conflicts_with = "to_lsn")]
    pub(super) to_time: Option<String>,
    /// The same for a position in the server's log, as `pgstow changes` prints it
    #[arg(long, value_name = "LSN")]
    pub(super) to_lsn: Option<String>,
    /// Restore the moment also if some tables cannot be had exactly as they were; the report names them
    #[arg(long)]
    pub(super) allow_partial: bool,
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Refuse the backup unless its manifest has this SHA-256, as in the report of the backup
    #[arg(long, value_name = "SHA256")]
    pub(super) expect_manifest: Option<String>,
    /// With latest: the database, if the store holds backups of several
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum IncrementalAction {
    /// Make the publications, the slot and the first full backup; mend what is missing
    Start {
        /// Allow a slot for which the server may keep any amount of log (max_slot_wal_keep_size = -1)
        #[arg(long)]
        accept_unbounded_wal: bool,
        /// Only print the statements that the owner of the tables has to run
        #[arg(long)]
        print_sql: bool,
    },
    /// Drop the slot and the publications; the store is not needed
    Stop {
        /// The stream to end, if the database has several
        #[arg(long, value_name = "NAME")]
        slot: Option<String>,
    },
    /// Show the slot, the tables that are not exact, and what a person has to do
    Status,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServeAction {
    /// Read a password from stdin, and print its hash for BACKUP_USERS_FILE
    #[command(after_long_help = "Example:\n  echo \"ann:admin:$(pgstow serve hash-password <password)\" >>users")]
    HashPassword,
}

#[derive(Debug, Subcommand)]
pub(super) enum RetentionAction {
    /// Print the rules that `apply` would install in a bucket without any, as JSON
    Show,
    /// Install the rules; rules of other programs, and of tiers that the retention no longer has, stay as they are
    Apply,
}
