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

/// The error after this answer to the request for TLS.
async fn refused_after(answer: &[u8], mode: &str) -> Error {
    let info = info("");
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    theirs.write_all(answer).await.unwrap();
    let redactor = Redactor::new(&info);
    let attempt = attempt(mode);
    let negotiated = tokio::time::timeout(Duration::from_secs(5), negotiate(ours, &attempt, &redactor)).await;
    asked(&mut theirs).await;
    // Nothing is sent to a server that has not agreed.
    assert!(said_by(theirs).await.is_empty(), "{mode}");
    let Err(error) = negotiated.expect("it does not wait for more") else {
        panic!("{answer:?} was taken for an agreement")
    };
    assert_eq!(error.code(), Code::ConnErr, "{error}");
    error
}

#[tokio::test]
async fn an_error_before_tls_is_told_as_one_that_anyone_may_have_written() {
    let complete = message(b'E', format!("SFATAL\0C53300\0Mno room, {PASSWORD}\0\0").as_bytes());
    // As a server sends it that cannot make a process for the connection.
    let plain = b"Ecould not fork new process for connection: no room\n\0".to_vec();
    for mode in ["prefer", "require"] {
        for said in [&complete, &plain] {
            let error = refused_after(said, mode).await;
            assert!(error.message().contains("refuses the request for TLS: "), "{error}");
            assert!(error.message().contains("no room"), "{error}");
            assert!(!error.message().contains(PASSWORD), "{error}");
            assert!(error.hint_text().contains("not encrypted"), "{}", error.hint_text());
        }
    }
    // The end never comes.
    let long = [b'x'; 20_000];
    for start in [&b"E"[..], b"E\0\0\x20\x05", b"E\0\0\x20\x01"] {
        let error = refused_after(&[start, &long].concat(), "require").await;
        assert!(error.message().contains("without an end"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_of_another_program_is_not_taken_for_a_refusal_of_tls() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"s", b"\0"] {
        for mode in ["prefer", "require"] {
            let error = refused_after(answer, mode).await;
            let byte = format!("the byte 0x{:02x}", answer[0]);
            assert!(error.message().contains(&byte), "{error}");
            assert!(error.hint_text().contains("host and port"), "{}", error.hint_text());
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
