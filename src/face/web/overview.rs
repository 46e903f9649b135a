//! What the stores say, asked anew when the last answer is too old.

use std::sync::Arc;

use super::question::{self, PATIENCE, Question};
use crate::command::Command;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::report::Report;
use crate::run::clock::Clock;
use crate::run::progress::Silent;
use crate::run::stop::Stop;

pub(super) type Seen = question::Seen<Report>;

/// The store's answer, if it comes while a client waits for it.
pub(super) async fn in_time<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.unwrap_or_else(|_| Err(Error::new(Code::Store, "the store did not answer in 20 s")))
}

/// The last answers, per member and question.
pub(super) struct Overview {
    control: Arc<Control>,
    questions: Vec<Questions>,
}

struct Questions {
    status: Arc<Question<Report>>,
    list: Arc<Question<Report>>,
}

impl Overview {
    pub fn new(control: Arc<Control>, clock: Clock) -> Self {
        let questions = control.fleet().iter().map(|_| Questions {
            status: Question::new(clock),
            list: Question::new(clock),
        });
        Self {
            questions: questions.collect(),
            control,
        }
    }

    /// `status` of one member.
    pub async fn status(&self, member: usize) -> Result<Arc<Seen>> {
        let question = &self.questions[member].status;
        let round = self.control.runs_ended();
        question
            .answer(round, || self.ask(member, Command::Status { database: None }))
            .await
    }

    /// `list` of one member: all databases of its store.
    pub async fn list(&self, member: usize) -> Result<Arc<Seen>> {
        let question = &self.questions[member].list;
        let round = self.control.runs_ended();
        question
            .answer(round, || self.ask(member, Command::List { database: None }))
            .await
    }

    fn ask(&self, member: usize, command: Command) -> impl Future<Output = Result<Report>> + Send + 'static {
        let app = self.control.fleet()[member].app.clone();
        async move { app.run(command, Stop::new(), Arc::new(Silent)).await }
    }
}
