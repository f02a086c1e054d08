//! The one place that writes: it decides what is shown, how, and where.
//!
//! Standard output gets what was asked for (plan, list, JSON events, result), standard error the talk
//! around it. A reader that went away (`| head`) is no failure: what it would have got is dropped and
//! the work goes on, for a run must not end because a log viewer did.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Zoned;
use underpin_engine::{Report, Reporter};

use super::failure::FailureText;
use super::json;
use super::plain::Plain;
use super::progress::Bars;
use crate::args::{GlobalArgs, Output};
use crate::exit::kind_of;

/// How reports are shown.
#[derive(Debug)]
enum View {
    /// A bar with lines above it.
    Bars(Box<Bars>),
    /// Lines with the time of day.
    Lines(Plain),
    /// One object a line on standard output.
    Json,
}

/// Where data goes.
struct Data {
    writer: Box<dyn Write + Send>,
    /// Why nothing can be written any more.
    broken: Option<io::Error>,
}

/// See the module's head. Clones share everything.
#[derive(Clone)]
pub(crate) struct Printer {
    view: Arc<Mutex<View>>,
    data: Arc<Mutex<Data>>,
    talk: Arc<Mutex<Box<dyn Write + Send>>>,
    is_json: bool,
    can_ask: bool,
    reporter: Option<Reporter>,
}

impl Printer {
    /// A printer for this program's streams.
    pub(crate) fn new(global: &GlobalArgs) -> Self {
        let can_draw = global.output == Output::Auto && global.verbose == 0;
        let view = match (global.output, can_draw.then(Bars::new).flatten()) {
            (Output::Json, _) => View::Json,
            (_, Some(bars)) => View::Bars(Box::new(bars)),
            (_, None) => View::Lines(Plain::default()),
        };
        let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
        Self::with(view, Box::new(io::stdout()), Box::new(io::stderr()), can_ask)
    }

    fn with(
        view: View,
        data: Box<dyn Write + Send>,
        talk: Box<dyn Write + Send>,
        can_ask: bool,
    ) -> Self {
        let is_json = matches!(view, View::Json);
        let mut printer = Self {
            view: Arc::new(Mutex::new(view)),
            data: Arc::new(Mutex::new(Data { writer: data, broken: None })),
            talk: Arc::new(Mutex::new(talk)),
            is_json,
            can_ask,
            reporter: None,
        };
        let shown = printer.clone();
        printer.reporter = Some(Reporter::new(move |report| shown.show(&report)));
        printer
    }

    /// Whether a program reads along.
    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether there is a person to ask.
    pub(crate) fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// The way for reports from the engine to here; its clock began with this printer.
    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone().unwrap_or_else(Reporter::silent)
    }

    /// Sends a report of our own the same way.
    pub(crate) fn tell(&self, make: impl FnOnce(u64) -> Report) {
        self.reporter().tell(make);
    }

    /// Writes text to standard output; it should end with a line end.
    pub(crate) fn data(&self, text: &str) {
        let mut data = lock(&self.data);
        if data.broken.is_some() {
            return;
        }
        let written = data.writer.write_all(text.as_bytes()).and_then(|()| data.writer.flush());
        let Err(error) = written else { return };
        let is_noteworthy = error.kind() != io::ErrorKind::BrokenPipe;
        data.broken = Some(error);
        drop(data);
        if is_noteworthy {
            self.talk(&format!("warning: standard output cannot be written: {}", self.broken()));
        }
    }

    /// Why standard output took not all it was given; empty where it did, or where nobody reads it.
    pub(crate) fn broken(&self) -> String {
        match &lock(&self.data).broken {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => error.to_string(),
            _ => String::new(),
        }
    }

    /// Writes a line to standard error.
    pub(crate) fn talk(&self, line: &str) {
        self.say(&lock(&self.view), line);
    }

    /// Writes a warning to standard error.
    pub(crate) fn warning(&self, text: &str) {
        self.talk(&format!("warning: {text}"));
    }

    /// Asks on the terminal; only the word `yes` is one.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub(crate) fn ask(&self, question: &str) -> io::Result<bool> {
        let mut terminal = lock(&self.talk);
        write!(terminal, "{question} ")?;
        terminal.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(answer.trim().eq_ignore_ascii_case("yes"))
    }

    /// Prints an error, as the last thing; for programs as an event too.
    pub(crate) fn failure(&self, error: &anyhow::Error) {
        let text = FailureText::of(error);
        if self.is_json {
            let kind = kind_of(error).to_owned();
            let message = match text.next.is_empty() {
                true => text.message.clone(),
                false => format!("{}. {}", text.message, text.next),
            };
            self.tell(|at_ms| Report::Error { at_ms, kind, message });
        }
        self.close();
        self.talk(&text.lines());
    }

    /// Takes the bar off the screen, if there is one.
    pub(crate) fn close(&self) {
        if let View::Bars(bars) = &*lock(&self.view) {
            bars.clear();
        }
    }

    fn show(&self, report: &Report) {
        if self.is_json {
            self.data(&format!("{}\n", json::line(report)));
            return;
        }
        let mut view = lock(&self.view);
        let line = match &mut *view {
            View::Bars(bars) => bars.show(report),
            View::Lines(plain) => {
                plain.line(report).map(|line| format!("{} {line}", Zoned::now().strftime("%F %T")))
            }
            View::Json => None,
        };
        if let Some(line) = line {
            self.say(&view, &line);
        }
    }

    fn say(&self, view: &View, line: &str) {
        let write = || {
            // Where standard error is closed there is nobody left to tell.
            let _ = writeln!(lock(&self.talk), "{line}");
        };
        match view {
            View::Bars(bars) => bars.above(write),
            View::Lines(_) | View::Json => write(),
        }
    }
}

/// A panic while printing must not silence what is printed afterwards.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
