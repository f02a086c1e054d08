//! What goes to standard output, and what becomes of it when nobody reads it.

use underpin_dialect::{DbError, ErrorKind};

use super::*;

/// A writer that keeps what it is given, or fails from the first byte on.
#[derive(Clone, Default)]
struct Paper {
    text: Arc<Mutex<Vec<u8>>>,
    fails: Option<io::ErrorKind>,
    tries: Arc<Mutex<u32>>,
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(lock(&self.text).clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        *lock(&self.tries) += 1;
        match self.fails {
            Some(kind) => Err(kind.into()),
            None => {
                lock(&self.text).extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn phase(at_ms: u64) -> Report {
    Report::Phase { at_ms, phase: "copy".into() }
}

fn printer(view: View, paper: &Paper) -> Printer {
    Printer::with(view, Box::new(paper.clone()), Box::new(io::sink()), false)
}

/// Standard output and standard error of a printer that `act` used.
fn both(view: View, act: impl FnOnce(&Printer)) -> (String, String) {
    let (data, talk) = (Paper::default(), Paper::default());
    act(&Printer::with(view, Box::new(data.clone()), Box::new(talk.clone()), false));
    (data.text(), talk.text())
}

#[test]
fn events_are_data_for_programs() {
    let (data, talk) = both(View::Json, |printer| printer.tell(|_| phase(5)));
    let line = "{\"event\":\"phase\",\"at_ms\":5,\"phase\":\"copy\",\"schema\":1}\n";
    assert_eq!((data.as_str(), talk.as_str()), (line, ""));
}

#[test]
fn events_are_talk_for_people_with_the_time_of_day() {
    let (data, talk) = both(View::Lines(Plain::default()), |printer| {
        printer.tell(|_| phase(5));
        printer.data("result\n");
    });
    assert_eq!(data, "result\n");
    let pattern: String = talk.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(pattern, "0000-00-00 00:00:00 phase copy\n");
}

#[test]
fn an_error_is_said_once() {
    let error = DbError::new(ErrorKind::AccessDenied, "connecting", "db1").help("Check it");
    let (data, talk) =
        both(View::Lines(Plain::default()), |printer| printer.failure(&error.into()));
    assert_eq!((data.as_str(), talk.as_str()), ("", "error: connecting (db1)\n next: Check it\n"));
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let paper = Paper { fails: Some(io::ErrorKind::BrokenPipe), ..Paper::default() };
    let talk = Paper::default();
    let printer = Printer::with(View::Json, Box::new(paper.clone()), Box::new(talk.clone()), false);
    printer.data("a\n");
    printer.data("b\n");
    printer.tell(phase);
    assert_eq!(*lock(&paper.tries), 1);
    assert_eq!((printer.broken(), talk.text()), (String::new(), String::new()));
}

#[test]
fn a_full_disk_is_remembered() {
    let paper = Paper { fails: Some(io::ErrorKind::StorageFull), ..Paper::default() };
    let printer = printer(View::Lines(Plain::default()), &paper);
    printer.data("a\n");
    assert!(!printer.broken().is_empty());
}

#[test]
fn an_error_is_an_event_for_programs() {
    let paper = Paper::default();
    let error = DbError::new(ErrorKind::AccessDenied, "connecting", "db1").help("Check it");
    printer(View::Json, &paper).failure(&error.into());
    let value: serde_json::Value = serde_json::from_str(&paper.text()).unwrap();
    assert_eq!(value["event"], "error");
    assert_eq!(value["kind"], "database");
    assert_eq!(value["message"], "connecting (db1). Check it");
}
