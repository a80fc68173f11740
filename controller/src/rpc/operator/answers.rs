//! A person's answers to what runs wait for. What an answer does to a run is
//! `execute::ask`'s; here it is found, checked against the question that stands,
//! and journalled with who gave it.

use lifecycle::RunState;
use lifecycle::question::Verb;
use proto::v1;
use serde_json::json;
use tonic::Status;

use super::super::select;
use super::OperatorService;
use crate::core::{Changes, CoreError};
use crate::execute::ask;
use crate::model::{Run, Wish};

/// Which answer is meant.
enum Said {
    Number { number: u32, asked_ms: u64 },
    GoOn,
}

impl OperatorService {
    /// Takes an answer.
    pub(super) async fn answered(&self, actor: &str, ask: v1::AnswerRequest) -> Result<Run, Status> {
        let said = Said::Number { number: ask.number, asked_ms: ask.asked_ms };
        self.say(actor, &ask.run, &said, "answered").await
    }

    /// `resume` of a run that waits: the answer that lets it go on.
    pub(super) async fn went_on(&self, actor: &str, text: &str) -> Result<Run, Status> {
        self.say(actor, text, &Said::GoOn, "resumed").await
    }

    async fn say(&self, actor: &str, text: &str, said: &Said, verb: &str) -> Result<Run, Status> {
        for _ in 0..8 {
            let mut run = select::run(&self.core, text).await?;
            let (number, answer) = meant(&run.body, said)?;
            let RunState::Waiting { question, .. } = &run.body.status else { continue };
            let mut detail = json!({"kind": question.kind.name(), "number": number, "answer": answer.name()});
            ask::answered(&mut run.body, answer, true)?;
            detail["run"] = json!(run.body.status.name());
            let id = run.body.id;
            let changes = Changes::default().put(&run).note(&self.core, actor, verb, id, Some(id), detail);
            if self.core.commit(changes).await? {
                self.poke(&run.body).await?;
                return Ok(run.body);
            }
        }
        Err(Status::from(CoreError::Contended))
    }
}

/// The number of an answer and what it does.
fn meant(run: &Run, said: &Said) -> Result<(u32, Verb), Status> {
    let over = |why: String| Status::failed_precondition(why);
    let RunState::Waiting { question, .. } = &run.status else {
        return Err(over(format!("{} waits for no answer: it is {}", run.name, run.status.name())));
    };
    if run.wish != Wish::Run {
        return Err(over(format!("{} was answered already: it is being stopped", run.name)));
    }
    match said {
        Said::Number { asked_ms, .. } if *asked_ms != 0 && *asked_ms != question.asked_ms => {
            Err(over(format!(
                "that question of {} is over, and another one stands: see `outlast answer {0}`",
                run.name
            )))
        }
        Said::Number { number, .. } => {
            let choice =
                question.answer(*number).map_err(|error| Status::invalid_argument(error.to_string()))?;
            Ok((*number, choice.verb))
        }
        Said::GoOn => {
            let number = question.number_of(Verb::GoOn).unwrap_or(question.default);
            Ok((number, Verb::GoOn))
        }
    }
}

#[cfg(test)]
mod tests;
