//! KMS keys that sign: moto's, and one of Ed25519, which moto's KMS does not have yet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::moto::call;

/// A key of this spec for SIGN_VERIFY in moto: its ARN.
pub fn key(spec: &str) -> String {
    let body = json!({"KeyUsage": "SIGN_VERIFY", "KeySpec": spec});
    let made = call("kms", "TrentService.CreateKey", &body);
    made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
}

/// The key's public half, as `aws kms get-public-key` prints it.
pub fn public_key(arn: &str) -> String {
    let answer = call("kms", "TrentService.GetPublicKey", &json!({"KeyId": arn}));
    answer["PublicKey"].as_str().unwrap().to_owned()
}

/// A KMS with one key of the spec ECC_NIST_EDWARDS25519, by the API's own documents. `refuse` is
/// an action that it does not allow.
pub fn with_ed25519(refuse: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        for stream in listener.incoming() {
            answer(stream.unwrap(), &pair, refuse);
        }
    });
    endpoint
}

fn answer(stream: TcpStream, pair: &Ed25519KeyPair, refuse: Option<&str>) {
    let mut reader = BufReader::new(stream);
    let (mut action, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => action = value.rsplit('.').next().unwrap().to_owned(),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let arn = &asked["KeyId"];
    let (status, answer) = if refuse == Some(action.as_str()) {
        let what = format!(
            "User: u is not authorized to perform: kms:{action} on resource: {arn} because no policy allows it"
        );
        (400, json!({"__type": "AccessDeniedException", "message": what}))
    } else if action == "GetPublicKey" {
        let der = [
            &b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..],
            pair.public_key().as_ref(),
        ]
        .concat();
        let spec = "ECC_NIST_EDWARDS25519";
        (
            200,
            json!({"KeyId": arn, "PublicKey": STANDARD.encode(der), "KeySpec": spec, "KeyUsage": "SIGN_VERIFY",
            "SigningAlgorithms": ["ED25519_SHA_512", "ED25519_PH_SHA_512"]}),
        )
    } else {
        assert_eq!((action.as_str(), &asked["MessageType"]), ("Sign", &json!("RAW")));
        assert_eq!(asked["SigningAlgorithm"], "ED25519_SHA_512");
        let message = STANDARD.decode(asked["Message"].as_str().unwrap()).unwrap();
        assert!(message.len() <= 4096, "KMS takes no more");
        let signature = STANDARD.encode(pair.sign(&message));
        (
            200,
            json!({"KeyId": arn, "Signature": signature, "SigningAlgorithm": "ED25519_SHA_512"}),
        )
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    reader.into_inner().write_all((head + &answer).as_bytes()).unwrap();
}
