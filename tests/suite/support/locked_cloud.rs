//! moto with IAM switched on, of a test's own: who has no policy is refused.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::http::post;
use super::program::program;
use super::services::{REGION, aws_cli};

pub struct LockedCloud {
    server: Child,
    pub endpoint: String,
    access_key: String,
    secret_key: String,
}

impl LockedCloud {
    /// Holds one secret, and one user who may do nothing.
    pub fn start(secret: &str, value: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // It goes when the test's process is killed.
        let server = program("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(aws_cli().with_file_name("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut cloud = Self {
            server,
            endpoint: format!("http://127.0.0.1:{port}"),
            access_key: String::new(),
            secret_key: String::new(),
        };
        let end = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "moto does not listen");
            sleep(Duration::from_millis(50));
        }
        let body = serde_json::json!({"Name": secret, "SecretString": value, "ClientRequestToken": "0".repeat(36)});
        let target = "secretsmanager.CreateSecret";
        cloud.call("secretsmanager", &[("X-Amz-Target", target)], &body.to_string());
        cloud.call("iam", &[], "Action=CreateUser&UserName=nobody&Version=2010-05-08");
        let key = cloud.call("iam", &[], "Action=CreateAccessKey&UserName=nobody&Version=2010-05-08");
        let element = |name: &str| {
            let (_, rest) = key.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        cloud.access_key = element("AccessKeyId");
        cloud.secret_key = element("SecretAccessKey");
        let locked = post(
            &cloud.endpoint,
            "/moto-api/reset-auth",
            &[("Content-Type", "text/plain")],
            "0",
        );
        assert_eq!(locked.status, 200, "{}", locked.body);
        cloud
    }

    fn call(&self, service: &str, headers: &[(&str, &str)], body: &str) -> String {
        let kind = if headers.is_empty() {
            "application/x-www-form-urlencoded"
        } else {
            "application/x-amz-json-1.1"
        };
        let signature = format!(
            "AWS4-HMAC-SHA256 Credential=test/20250101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let mut all = vec![("Authorization", signature.as_str()), ("Content-Type", kind)];
        all.extend(headers);
        let answer = post(&self.endpoint, "/", &all, body);
        assert_eq!(answer.status, 200, "{service}: {}", answer.body);
        answer.body
    }

    /// What lets a command act as the user who may do nothing.
    pub fn as_nobody<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", &self.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret_key)
    }
}

impl Drop for LockedCloud {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
