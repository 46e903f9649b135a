//! Secrets Manager, SNS and SQS, as moto plays them.

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::database::unique_word;
use super::http::post;
use super::services::{REGION, aws_endpoint};

/// A call of a service that speaks JSON. moto finds the service by the request's signature,
/// which it does not check.
pub fn call(service: &str, target: &str, body: &Value) -> Value {
    let headers = [
        ("Authorization", signature(service)),
        ("X-Amz-Target", target.to_owned()),
        ("Content-Type", "application/x-amz-json-1.0".to_owned()),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = post(&aws_endpoint(), "/", &headers, &body.to_string());
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
    if answer.body.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&answer.body).unwrap()
    }
}

/// A call of a service that takes forms and answers in XML; returns the text of one element.
fn call_query(service: &str, fields: &[(&str, &str)], element: &str) -> String {
    let form: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    let authorization = signature(service);
    let headers = [
        ("Authorization", authorization.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let answer = post(&aws_endpoint(), "/", &headers, &form.join("&"));
    let text = answer
        .body
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once("</"));
    text.unwrap_or_else(|| panic!("{fields:?}: {}", answer.body))
        .0
        .to_owned()
}

fn signature(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20250101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

/// Stores a secret of a new name; returns its ARN.
pub fn secret(value: &str) -> String {
    let body = json!({"Name": format!("pgstow-{}", unique_word()), "SecretString": value,
        "ClientRequestToken": format!("{:0>36}", unique_word())});
    call("secretsmanager", "secretsmanager.CreateSecret", &body)["ARN"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Gives a secret a new value, as a rotation does.
pub fn rotate(secret: &str, value: &str) {
    let body =
        json!({"SecretId": secret, "SecretString": value, "ClientRequestToken": format!("{:0>36}", unique_word())});
    call("secretsmanager", "secretsmanager.PutSecretValue", &body);
}

/// A cluster with a task definition in it that Fargate could run, and where.
pub struct Cluster {
    pub name: String,
    pub family: String,
    pub subnet: String,
    pub security_group: String,
}

impl Cluster {
    pub fn fresh() -> Self {
        let (name, family) = (unique_word(), unique_word());
        ecs("CreateCluster", &json!({"clusterName": name}));
        let container = json!({"name": "pgstow", "image": "pgstow", "memory": 2048, "essential": true});
        let definition = json!({
            "family": family, "requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "1024",
            "memory": "2048", "containerDefinitions": [container],
        });
        ecs("RegisterTaskDefinition", &definition);
        let asked = [("Action", "DescribeSubnets"), ("Version", "2016-11-15")];
        let subnet = call_query("ec2", &asked, "subnetId");
        let asked = [("Action", "DescribeSecurityGroups"), ("Version", "2016-11-15")];
        let security_group = call_query("ec2", &asked, "groupId");
        Self {
            name,
            family,
            subnet,
            security_group,
        }
    }

    /// The tasks that were started in it, as ECS describes them.
    pub fn tasks(&self) -> Vec<Value> {
        let listed = ecs("ListTasks", &json!({"cluster": self.name}));
        if listed["taskArns"].as_array().unwrap().is_empty() {
            return Vec::new();
        }
        let asked = json!({"cluster": self.name, "tasks": listed["taskArns"]});
        ecs("DescribeTasks", &asked)["tasks"].as_array().unwrap().clone()
    }
}

fn ecs(action: &str, body: &Value) -> Value {
    call("ecs", &format!("AmazonEC2ContainerServiceV20141113.{action}"), body)
}

/// An SNS topic whose messages land in a queue that the test reads.
pub struct Topic {
    pub arn: String,
    queue: String,
}

/// A message as SNS delivered it.
#[derive(Debug)]
pub struct Message {
    pub subject: String,
    pub body: String,
    pub attributes: BTreeMap<String, String>,
}

impl Topic {
    pub fn fresh() -> Self {
        let name = format!("pgstow-{}", unique_word());
        let arn = call_query("sns", &[("Action", "CreateTopic"), ("Name", &name)], "TopicArn");
        let created = call("sqs", "AmazonSQS.CreateQueue", &json!({"QueueName": name}));
        let queue = created["QueueUrl"].as_str().unwrap().to_owned();
        let queue_arn = arn.replace(":sns:", ":sqs:");
        let fields = [
            ("Action", "Subscribe"),
            ("TopicArn", &arn),
            ("Protocol", "sqs"),
            ("Endpoint", queue_arn.as_str()),
        ];
        call_query("sns", &fields, "SubscriptionArn");
        Self { arn, queue }
    }

    /// Takes what has arrived, oldest first.
    pub fn messages(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let body = json!({"QueueUrl": self.queue, "MaxNumberOfMessages": 10});
            let received = call("sqs", "AmazonSQS.ReceiveMessage", &body);
            let Some(batch) = received["Messages"].as_array().filter(|batch| !batch.is_empty()) else {
                return messages;
            };
            for message in batch {
                let delivered: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
                let attributes = delivered["MessageAttributes"].as_object().into_iter().flatten();
                messages.push(Message {
                    subject: delivered["Subject"].as_str().unwrap_or_default().to_owned(),
                    body: delivered["Message"].as_str().unwrap().to_owned(),
                    attributes: attributes
                        .map(|(name, value)| (name.clone(), value["Value"].as_str().unwrap().to_owned()))
                        .collect(),
                });
                let body = json!({"QueueUrl": self.queue, "ReceiptHandle": message["ReceiptHandle"]});
                call("sqs", "AmazonSQS.DeleteMessage", &body);
            }
        }
    }
}
