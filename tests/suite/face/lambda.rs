//! The program as a Lambda function, under AWS's own Runtime Interface Emulator: from an event to
//! the bucket and the queue. PostgreSQL is real, S3 is SeaweedFS, Secrets Manager and SNS are moto.

pub mod place;

mod deadline;
mod events;
mod failures;
mod handing_over;
mod increments;
mod metrics;
mod proving;
mod secrecy;
