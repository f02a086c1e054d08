//! An error as the last thing on the screen: what happened, then what to do next. Printed once.
//!
//! Owns the wording of the chain. Which exit code follows is [`crate::exit`]'s.

use underpin_dialect::DbError;
use underpin_engine::EngineError;

use crate::exit::Problem;

/// What a failure says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailureText {
    /// The chain in one sentence, outermost first.
    pub(super) message: String,
    /// What to do next; empty where the message says it.
    pub(super) next: String,
}

impl FailureText {
    /// The text of an error's chain.
    ///
    /// A link that only repeats the one above it (a transparent wrapper) is said once; advice moves
    /// out of the sentence, to a line of its own.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        let mut said: Vec<String> = Vec::new();
        let mut next = String::new();
        let mut above = String::new();
        for link in error.chain() {
            let whole = link.to_string();
            let repeats = whole == above;
            let (text, advice) = parts_of(link, &whole);
            if repeats {
                said.pop();
            }
            if !advice.is_empty() {
                next = advice;
            }
            said.push(text);
            above = whole;
        }
        Self { message: said.join(": "), next }
    }

    /// As it is printed on a terminal.
    pub(super) fn lines(&self) -> String {
        if self.next.is_empty() {
            format!("error: {}", self.message)
        } else {
            format!("error: {}\n next: {}", self.message, self.next)
        }
    }
}

/// A link's own sentence, and its advice where that can be told apart.
fn parts_of(link: &(dyn std::error::Error + 'static), whole: &str) -> (String, String) {
    if let Some(error) = link.downcast_ref::<DbError>() {
        let bare = DbError { help: None, ..error.clone() };
        return (bare.to_string(), error.help.clone().unwrap_or_default());
    }
    if let Some(problem) = link.downcast_ref::<Problem>() {
        return (problem.message.clone(), problem.next.clone());
    }
    if let Some(EngineError::Failed { failure, .. }) = link.downcast_ref::<EngineError>() {
        let advice = whole.strip_prefix(&failure.message).unwrap_or_default();
        let advice = advice.trim_start_matches(['.', ' ']).to_owned();
        // Without advice of its own the sentence is told whole.
        if !advice.is_empty() {
            return (failure.message.clone(), advice);
        }
    }
    (whole.to_owned(), String::new())
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use underpin_core::machine::{Failure, FailureKind};
    use underpin_dialect::ErrorKind;

    use super::*;

    fn denied() -> DbError {
        DbError::new(ErrorKind::AccessDenied, "reading the columns", "shop.orders")
            .said("SELECT command denied")
            .help("Grant the account SELECT")
    }

    #[test]
    fn a_chain_is_one_sentence_and_one_advice() {
        let error: anyhow::Result<()> = Err(denied()).context("planning the change");
        assert_eq!(
            FailureText::of(&error.unwrap_err()).lines(),
            "error: planning the change: reading the columns (shop.orders): the server said: \
             SELECT command denied\n next: Grant the account SELECT"
        );
    }

    #[test]
    fn a_wrapper_does_not_repeat_its_cause() {
        let error = anyhow::Error::new(EngineError::from(denied())).context("changing shop.orders");
        let text = FailureText::of(&error).lines();
        assert_eq!(text.matches("SELECT command denied").count(), 1, "{text}");
        assert_eq!(text.matches("Grant the account").count(), 1, "{text}");
    }

    #[test]
    fn a_failed_run_says_what_to_do_on_a_line_of_its_own() {
        let failure =
            Failure { kind: FailureKind::Violation, message: "row 7 does not fit".into() };
        let table = "shop.orders".to_owned();
        let error = EngineError::Failed { failure, swapped: false, table };
        let text = FailureText::of(&error.into());
        assert_eq!(text.message, "row 7 does not fit");
        assert!(text.next.starts_with("The run can be resumed"), "{text:?}");
    }

    #[test]
    fn our_own_problem_brings_its_advice() {
        let error = anyhow::Error::new(Problem::usage("no statement", "write one"));
        assert_eq!(FailureText::of(&error).lines(), "error: no statement\n next: write one");
    }
}
