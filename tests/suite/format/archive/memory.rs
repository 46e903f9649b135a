//! An upload into memory, and the pipeline run over bytes.

use std::io::Cursor;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use pgstow::dataflow::compress::Codec;
use pgstow::dataflow::pipeline::{self, Failure, Flow, Inflow, Passed};
use pgstow::error::{Error, Result};
use pgstow::run::progress::Silent;
use pgstow::store::{Expected, Mark, Stored, Upload};

#[derive(Default, Clone)]
pub struct Memory(pub Arc<Mutex<(Vec<u8>, bool)>>);

#[async_trait]
impl Upload for Memory {
    fn mark(&self) -> Mark {
        Mark(String::new())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.lock().unwrap().0.extend_from_slice(&bytes);
        Ok(())
    }
    async fn complete(self: Box<Self>, expected: &Expected) -> Result<Stored> {
        Ok(Stored {
            bytes: expected.bytes,
            checksum: None,
            parts: Vec::new(),
        })
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        self.0.lock().unwrap().1 = true;
        Ok(())
    }
}

pub struct Rewritten {
    pub object: Vec<u8>,
    pub passed: Passed,
}

/// Which of pg_dump's formats the bytes are.
#[derive(Clone, Copy)]
pub enum Shape {
    Archive,
    Sql,
}

pub fn flow(input: impl Into<Vec<u8>>, shape: Shape, codec: Codec) -> Flow {
    let bytes = Box::new(Cursor::new(input.into()));
    Flow {
        input: match shape {
            Shape::Archive => Inflow::Archive(bytes),
            Shape::Sql => Inflow::Sql(bytes),
        },
        codec,
        threads: 2,
        range: pipeline::RANGE,
        stages: Vec::new(),
        earlier: pgstow::dataflow::pipeline::EarlierBlocks::default(),
        md5: false,
        observer: Arc::new(Silent),
    }
}

pub async fn run(flow: Flow) -> Result<Rewritten, Error> {
    let memory = Memory::default();
    match pipeline::run(flow, vec![Box::new(memory.clone())], Default::default()).await {
        Ok(passed) => {
            let object = memory.0.lock().unwrap().0.clone();
            Ok(Rewritten { object, passed })
        }
        Err(failure) => {
            assert!(memory.0.lock().unwrap().1, "a failed run must abort its upload");
            Err(match failure {
                Failure::Source(error) | Failure::Store(error) => error,
                Failure::Stopped => Error::internal("stopped"),
            })
        }
    }
}

pub fn run_blocking(flow: Flow) -> Result<Rewritten, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(run(flow))
}
