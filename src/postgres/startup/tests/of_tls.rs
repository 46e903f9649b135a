//! Messages before the login that must not be taken for the login.

use super::*;
use crate::postgres::startup::negotiation::negotiate;

fn attempt(mode: &str) -> Attempt {
    let attempts = tls::attempts(&info(&format!("sslmode={mode}")), None).unwrap();
    attempts.into_iter().next().unwrap()
}

async fn asked(client: &mut DuplexStream) {
    let mut question = [0; 8];
    client.read_exact(&mut question).await.unwrap();
    assert_eq!(question, [0, 0, 0, 8, 4, 210, 22, 47]);
}

#[tokio::test]
async fn a_server_without_tls_is_taken_or_refused_as_the_sslmode_says() {
    for (mode, taken) in [("prefer", true), ("require", false)] {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        theirs.write_all(b"N").await.unwrap();
        let ready = negotiate(ours, &attempt(mode), &Redactor::default()).await;
        asked(&mut theirs).await;
        assert_eq!(ready.is_ok(), taken, "{mode}");
        match ready {
            Ok(ready) => assert!(!ready.encrypted && ready.binding.is_none()),
            Err(error) => assert_eq!(error.hint_text(), crate::postgres::refusal::NO_TLS),
        }
    }
}

#[tokio::test]
async fn what_comes_unencrypted_after_the_answer_is_never_taken_for_the_login() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 10);
    let said = [b"S", &done()[..], READY].concat();
    theirs.write_all(&said).await.unwrap();
    let redactor = Redactor::default();
    let outcome = negotiate(ours, &attempt("require"), &redactor).await;
    let Err(error) = outcome else {
        panic!("the line was taken for encrypted")
    };
    assert_eq!(error.code(), Code::ConnErr, "{error}");
    assert!(error.message().contains("TLS handshake"), "{error}");
    asked(&mut theirs).await;
    // A TLS handshake record, and not a message of the login.
    assert_eq!(theirs.read_u8().await.unwrap(), 0x16);
}

#[tokio::test]
async fn a_question_for_the_password_is_judged_after_tls_was_declined() {
    let info = info("");
    let (ours, mut theirs) = tokio::io::duplex(1 << 10);
    let said = [b"N", &question(3, b"")[..]].concat();
    theirs.write_all(&said).await.unwrap();
    let ready = negotiate(ours, &attempt("prefer"), &Redactor::default()).await.unwrap();
    let redactor = Redactor::new(&info);
    let login = Login {
        info: &info,
        redactor: &redactor,
        purpose: Purpose::Statements,
        binding: ready.binding,
        questions: Questions::new(allowed(&info, true), true),
    };
    let mut stream = Stream::new(ready.line, ROOM);
    let outcome = login.log_in(&mut stream).await;
    assert_eq!(outcome.err().map(|error| error.code()), Some(Code::Auth));
}
