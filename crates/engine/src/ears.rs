//! What is heard while a run goes on: this program's commands, the probes' readings, orders left in the
//! store, the calendar; and what they add up to, which outlives every hold.

use std::collections::HashSet;

use tokio::sync::mpsc;
use underpin_core::machine::Command;
use underpin_core::signal::{Gates, Setting};
use underpin_dialect::{Given, Order};

use crate::calendar::Diary;
use crate::probe::Reading;
use crate::report::Report;
use crate::reporter::Reporter;
use crate::spell::{command_text, setting_text};

/// What people have asked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    is_paused: bool,
    end: Option<Command>,
    is_swap_asked: bool,
    settings: Vec<Setting>,
}

impl Wanted {
    /// Notes a command; true where it is a `Stop` that has been asked for before.
    pub(crate) fn note(&mut self, command: &Command) -> bool {
        let again = *command == Command::Stop && self.end == Some(Command::Stop);
        match command {
            Command::Pause => self.is_paused = true,
            Command::Resume => self.is_paused = false,
            Command::Swap => self.is_swap_asked = true,
            Command::Set(setting) => self.settings.push(setting.clone()),
            Command::Stop => self.end = self.end.take().or(Some(Command::Stop)),
            Command::Abort => self.end = Some(Command::Abort),
        }
        again
    }

    /// Goes through the orders on record anew: one may have been taken away and not have come here. What
    /// ends a run is not among them: that was for the program that ran then.
    fn recall<'a>(&mut self, orders: impl Iterator<Item = &'a Command>) {
        self.is_paused = false;
        self.settings.clear();
        for command in orders.filter(|it| !matches!(it, Command::Stop | Command::Abort)) {
            self.note(command);
        }
    }

    /// The commands that a new machine must hear.
    pub(crate) fn replay(&self) -> Vec<Command> {
        let settings = self.settings.iter().cloned().map(Command::Set);
        settings
            .chain(self.is_swap_asked.then_some(Command::Swap))
            .chain(self.is_paused.then_some(Command::Pause))
            .chain(self.end.clone())
            .collect()
    }

    /// Whether the run or this program's work on it is to end.
    pub(crate) fn is_end(&self) -> bool {
        self.end.is_some()
    }

    /// Whether this program is to stop and leave the run to be resumed.
    pub(crate) fn is_stop(&self) -> bool {
        self.end == Some(Command::Stop)
    }
}

/// Something that was heard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    /// From this program.
    Command(Command),
    /// From a probe.
    Reading(Reading),
    /// The calendar or a hook allows something else than before.
    Gates(Gates),
}

/// The channels, and what was wanted so far.
#[derive(Debug)]
pub(crate) struct Ears {
    commands: mpsc::Receiver<Command>,
    readings: Option<mpsc::Receiver<Reading>>,
    pub(crate) diary: Diary,
    reporter: Reporter,
    /// Names of the options of this program's command line. They are newer than orders before it.
    given: HashSet<String>,
    /// How many orders there were when this program entered the run first.
    orders_before: Option<usize>,
    pub(crate) wanted: Wanted,
}

impl Ears {
    pub(crate) fn new(
        commands: mpsc::Receiver<Command>,
        diary: Diary,
        reporter: Reporter,
        given: &[Given],
    ) -> Self {
        let given = given.iter().map(|given| given.name.clone()).collect();
        let wanted = Wanted::default();
        Self { commands, readings: None, diary, reporter, given, orders_before: None, wanted }
    }

    /// Begins to listen to the probes.
    pub(crate) fn open_to_probe(&mut self, readings: mpsc::Receiver<Reading>) {
        self.readings = Some(readings);
    }

    /// Takes in the orders on record, whoever took them.
    pub(crate) fn recall(&mut self, orders: &[Order]) {
        let is_first = self.orders_before.is_none();
        let before = *self.orders_before.get_or_insert(orders.len());
        let given = &self.given;
        let valid = |(index, order): (usize, &'_ Order)| match &order.command {
            Command::Set(setting) => index >= before || !given.contains(&setting_text(setting).0),
            _ => true,
        };
        let valid: Vec<&Order> = orders
            .iter()
            .enumerate()
            .filter(|(index, order)| valid((*index, order)))
            .map(|(_, order)| order)
            .collect();
        self.wanted.recall(valid.iter().map(|order| &order.command));
        if self.wanted.is_swap_asked {
            self.diary.release_swap();
        }
        if is_first && self.wanted.is_paused {
            let paused_by = valid.iter().rfind(|order| order.command == Command::Pause);
            if let Some(order) = paused_by {
                tell(&self.reporter, order);
            }
        }
    }

    /// The next command, reading or change of the calendar, as it comes. May be dropped while it waits.
    pub(crate) async fn hear(&mut self) -> Heard {
        let heard = tokio::select! {
            command = next_command(&mut self.commands) => Heard::Command(command),
            reading = next_reading(&mut self.readings) => Heard::Reading(reading),
            gates = self.diary.changed() => Heard::Gates(gates),
        };
        if let Heard::Reading(Reading::Requested(order)) = &heard {
            tell(&self.reporter, order);
        }
        heard
    }

    /// Notes a command; true where it is a `Stop` that has been asked for before.
    pub(crate) fn note(&mut self, command: &Command) -> bool {
        if *command == Command::Swap {
            self.diary.release_swap();
        }
        self.wanted.note(command)
    }

    /// Notes the next command; a reading is thrown away. May be dropped while it waits.
    pub(crate) async fn note_next(&mut self) {
        match self.hear().await {
            Heard::Command(command) => {
                self.note(&command);
            }
            Heard::Reading(Reading::Requested(order)) => {
                self.note(&order.command);
            }
            Heard::Reading(_) | Heard::Gates(_) => {}
        }
    }

    /// Throws away readings that were taken while the run was not held: they are old by now.
    pub(crate) fn drop_old_readings(&mut self) {
        let Some(mut readings) = self.readings.take() else { return };
        // The bound is the channel's size: the probes refill it slowly.
        for _ in 0..readings.max_capacity() {
            match readings.try_recv() {
                Ok(Reading::Requested(order)) => {
                    tell(&self.reporter, &order);
                    self.note(&order.command);
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.readings = Some(readings);
    }
}

fn tell(reporter: &Reporter, order: &Order) {
    reporter.tell(|at_ms| Report::Ordered {
        at_ms,
        command: command_text(&order.command),
        by: order.by.clone(),
        ordered_at: order.at.clone(),
    });
}

async fn next_command(commands: &mut mpsc::Receiver<Command>) -> Command {
    match commands.recv().await {
        Some(command) => command,
        // Nobody can ask any more.
        None => std::future::pending().await,
    }
}

async fn next_reading(readings: &mut Option<mpsc::Receiver<Reading>>) -> Reading {
    let reading = match readings {
        Some(readings) => readings.recv().await,
        None => None,
    };
    match reading {
        Some(reading) => reading,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::calendar::Calendar;

    fn order(command: Command) -> Order {
        let (at, by) = ("2026-11-21 10:00:00".to_owned(), "admin (ann@ops1)".to_owned());
        Order { command, by, at, taken_at: None }
    }

    fn ears(given: &[&str]) -> (mpsc::Sender<Command>, Ears) {
        let (commands, receiver) = mpsc::channel(1);
        let given: Vec<Given> =
            given.iter().map(|name| Given { name: (*name).into(), value: String::new() }).collect();
        (
            commands,
            Ears::new(
                receiver,
                Diary::new(Calendar::default(), watch::channel(None).1),
                Reporter::silent(),
                &given,
            ),
        )
    }

    #[test]
    fn what_was_asked_for_is_told_to_a_new_machine() {
        let mut wanted = Wanted::default();
        assert!(wanted.replay().is_empty());
        wanted.note(&Command::Pause);
        assert!(!wanted.note(&Command::Stop));
        assert_eq!(wanted.replay(), [Command::Pause, Command::Stop]);
        wanted.note(&Command::Resume);
        assert_eq!(wanted.replay(), [Command::Stop]);
        wanted.note(&Command::Swap);
        wanted.note(&Command::Set(Setting::MaxLag(500)));
        assert_eq!(
            wanted.replay(),
            [Command::Set(Setting::MaxLag(500)), Command::Swap, Command::Stop]
        );
    }

    #[test]
    fn a_second_stop_is_noticed_and_an_abort_outlives_a_stop() {
        let mut wanted = Wanted::default();
        wanted.note(&Command::Stop);
        assert!(wanted.note(&Command::Stop), "the second one");
        wanted.note(&Command::Abort);
        assert!(!wanted.note(&Command::Stop));
        assert_eq!(wanted.replay(), [Command::Abort]);
        assert!(!wanted.is_stop());
    }

    #[tokio::test]
    async fn a_request_among_old_readings_is_kept() {
        let (_commands, mut ears) = ears(&[]);
        let (readings, listener) = mpsc::channel(4);
        ears.open_to_probe(listener);
        for reading in [Reading::Backlog(7), Reading::Requested(order(Command::Abort))] {
            readings.send(reading).await.unwrap();
        }
        ears.drop_old_readings();
        assert_eq!(ears.wanted.replay(), [Command::Abort]);
        readings.send(Reading::Backlog(8)).await.unwrap();
        // The calendar speaks up once at the beginning.
        let heard = match ears.hear().await {
            Heard::Gates(_) => ears.hear().await,
            other => other,
        };
        assert_eq!(heard, Heard::Reading(Reading::Backlog(8)));
    }

    #[tokio::test]
    async fn orders_on_record_count_for_a_new_program_but_what_ended_the_old_one() {
        let (_commands, mut ears) = ears(&[]);
        let lag = Command::Set(Setting::MaxLag(5_000));
        let orders = [Command::Pause, lag.clone(), Command::Stop, Command::Abort].map(order);
        ears.recall(&orders);
        assert_eq!(ears.wanted.replay(), [lag, Command::Pause]);
        let resumed = [Command::Pause, Command::Resume].map(order);
        ears.recall(&resumed);
        assert!(ears.wanted.replay().is_empty());
    }

    #[tokio::test]
    async fn an_option_of_this_command_line_is_newer_than_orders_before_it() {
        let (_commands, mut ears) = ears(&["max-lag"]);
        let set = |ms| order(Command::Set(Setting::MaxLag(ms)));
        let workers = order(Command::Set(Setting::Workers(1)));
        let mut orders = vec![set(5_000), workers.clone()];
        ears.recall(&orders);
        assert_eq!(ears.wanted.replay(), std::slice::from_ref(&workers.command));
        // One that is given while this program runs is newer still, also after a lost connection.
        orders.push(set(9_000));
        ears.recall(&orders);
        assert_eq!(ears.wanted.replay(), [workers.command, Command::Set(Setting::MaxLag(9_000))]);
    }
}
