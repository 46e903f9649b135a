//! Amazon SNS: one message to a topic, with attributes for filter policies.

use async_trait::async_trait;
use aws_sdk_sns::Client;
use aws_sdk_sns::types::MessageAttributeValue;
use sha2::{Digest, Sha256};

use super::message::{BODY_BYTES, attributes, body, subject};
use super::{ChannelState, Notice, Notifier};
use crate::error::{Code, Error, Result};
use crate::outside::aws;

pub struct Sns {
    client: Client,
    topic_arn: String,
}

impl Sns {
    pub fn new(client: Client, topic_arn: impl Into<String>) -> Self {
        Self {
            client,
            topic_arn: topic_arn.into(),
        }
    }
}

#[async_trait]
impl Notifier for Sns {
    fn target(&self) -> &str {
        &self.topic_arn
    }

    async fn look(&self) -> Result<ChannelState> {
        let asked = self.client.get_topic_attributes().topic_arn(&self.topic_arn).send();
        match asked.await {
            Ok(_) => Ok(ChannelState::Exists),
            Err(error) => match aws::service_code(&error) {
                Some("AuthorizationError" | "AuthorizationErrorException" | "AccessDenied") => Ok(ChannelState::Hidden),
                _ => Err(aws::error(
                    Code::Config,
                    &format!("cannot look at {}", self.topic_arn),
                    &error,
                )),
            },
        }
    }

    async fn send(&self, notice: &Notice) -> Result<()> {
        let body = body(notice, BODY_BYTES);
        let mut publish = self
            .client
            .publish()
            .topic_arn(&self.topic_arn)
            .subject(subject(notice));
        if self.topic_arn.ends_with(".fifo") {
            // A FIFO topic needs a group and a deduplication id for each message. A database's name may have
            // characters that neither allows; digests have none.
            let database = notice.database.as_deref().unwrap_or_default();
            publish = publish
                .message_group_id(hex::encode(Sha256::digest(database)))
                .message_deduplication_id(hex::encode(Sha256::digest(&body)));
        }
        for (name, value) in attributes(notice) {
            let attribute = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                .map_err(|error| Error::internal("cannot build a message attribute").source(error))?;
            publish = publish.message_attributes(name, attribute);
        }
        publish.message(body).send().await.map_err(|error| {
            // This code never becomes a run's exit code: the caller turns the error into a warning.
            let what = format!("cannot notify {}", self.topic_arn);
            aws::error_needing(Code::Config, &what, &error, &["sns:Publish"], &self.topic_arn)
        })?;
        Ok(())
    }
}
