//! The hints for a server that answers and refuses the session. The function in the server's source that reports the
//! error shows the case, because the words are in the server's language.

use super::{SERVER_SAYS, ServerComplaint, classify_server};
use crate::error::{Code, Error};
use crate::postgres::quoting::identifier;
use crate::postgres::{ConnectionInfo, Redactor};

/// Functions of the server that apply the settings in `options`. For a role's or database's own settings the server
/// only warns.
const SETTING: [&str; 6] = [
    "set_config_option",
    "set_config_option_ext",
    "set_config_with_handle",
    "find_option",
    "assignable_custom_variable_name",
    "parse_and_validate_value",
];
const LOADING: [&str; 5] = [
    "internal_load_library",
    "check_restricted_library_name",
    "expand_dynamic_library_name",
    "find_in_dynamic_libpath",
    "find_in_path",
];

const REFUSED: &str = "the server refuses this session for the reason in the message: look there, and in the server's \
                       log, for a limit, or for a module or trigger that runs at each login";

pub(super) const IDLE: &str = "the server ends sessions that are idle for a moment: ALTER ROLE <role> RESET \
                               idle_session_timeout, or the same of the database or the server's configuration";

/// A refusal of the session that `info` asks for; `has_options`: with options that pgstow has not added.
pub(in crate::postgres) fn refused_login(
    complaint: &ServerComplaint,
    info: &ConnectionInfo,
    has_options: bool,
    redactor: &Redactor,
) -> Error {
    let text = redactor.clean(&format!("{SERVER_SAYS}: {}", complaint.text));
    let told = classify_server(&complaint.state, &text);
    if told.has_own_hint() {
        return told;
    }
    match hint(complaint, info, has_options, told.code()) {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

fn hint(complaint: &ServerComplaint, info: &ConnectionInfo, has_options: bool, code: Code) -> Option<String> {
    let role = identifier(info.user.as_deref().unwrap_or_default());
    let database = identifier(info.dbname.as_deref().unwrap_or_default());
    let state = complaint.state.code();
    let hint = match complaint.routine.as_str() {
        "CheckMyDatabase" if state == "42501" => format!("GRANT CONNECT ON DATABASE {database} TO {role}"),
        "CheckMyDatabase" if state == "55000" => format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"),
        "InitPostgres" if state == "55000" => format!(
            "a DROP DATABASE was interrupted, and the rest of the database cannot be used: name another, or finish it \
             with DROP DATABASE {database}"
        ),
        "InitPostgres" if state == "42501" => format!("ALTER ROLE {role} REPLICATION"),
        "InitializeSessionUserId" if state == "28000" => {
            format!("ALTER ROLE {role} LOGIN; or check its name, if there is no such role")
        }
        routine if LOADING.contains(&routine) => format!(
            "ALTER ROLE {role} RESET session_preload_libraries; or the same of ALTER DATABASE {database}, or of \
             local_preload_libraries, or in the server's configuration, wherever this library is named; or install it"
        ),
        routine if sets(routine) && has_options => {
            "this comes from `options` in the connection (in its URL, or PGOPTIONS): take the setting out there, or let the \
             role set it"
                .to_owned()
        }
        // The server decides who may log in, and gives no further reason.
        _ if code == Code::Auth => return None,
        _ => REFUSED.to_owned(),
    };
    Some(hint)
}

fn sets(routine: &str) -> bool {
    SETTING.contains(&routine)
        || routine == "process_postgres_switches"
        || (routine.starts_with("call_") && routine.ends_with("_check_hook"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::refusal::complaint;

    #[test]
    fn a_login_that_a_server_refuses_in_any_language_has_the_statement_that_helps() {
        let info = ConnectionInfo::parse_url("postgres://it%22s@h/sh op").unwrap();
        for (state, routine, hint) in [
            (
                "42501",
                "CheckMyDatabase",
                "GRANT CONNECT ON DATABASE \"sh op\" TO \"it\"\"s\"",
            ),
            (
                "55000",
                "CheckMyDatabase",
                "ALTER DATABASE \"sh op\" ALLOW_CONNECTIONS true",
            ),
            ("28000", "InitializeSessionUserId", "ALTER ROLE \"it\"\"s\" LOGIN;"),
            ("58P01", "internal_load_library", "RESET session_preload_libraries"),
            ("42704", "find_option", "PGOPTIONS"),
            ("42501", "call_string_check_hook", "PGOPTIONS"),
            ("P0001", "exec_stmt_raise", "trigger"),
            ("53300", "CheckMyDatabase", "CONNECTION LIMIT"),
        ] {
            let body = format!("SFATAL\0C{state}\0Mnein\0R{routine}\0\0");
            let told = refused_login(&complaint(body.as_bytes()), &info, true, &Redactor::new(&info));
            assert!(
                told.hint_text().contains(hint),
                "{state} {routine}: {}",
                told.hint_text()
            );
            assert!(!told.hint_text().contains("host, port"), "{}", told.hint_text());
        }
    }
}
