//! What is heard while a run goes on: this program's commands, the probe's readings, requests left in
//! the store; and what they add up to, which outlives every hold.

use tokio::sync::mpsc;
use underpin_core::machine::Command;
use underpin_core::signal::Setting;

use crate::probe::Reading;

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

    /// The commands that a new machine must hear.
    pub(crate) fn replay(&self) -> Vec<Command> {
        let settings = self.settings.iter().cloned().map(Command::Set);
        settings
            .chain(self.is_swap_asked.then_some(Command::Swap))
            .chain(self.is_paused.then_some(Command::Pause))
            .chain(self.end.clone())
            .collect()
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
    /// From the probe.
    Reading(Reading),
}

/// The channels, and what was wanted so far.
#[derive(Debug)]
pub(crate) struct Ears {
    commands: mpsc::Receiver<Command>,
    readings: Option<mpsc::Receiver<Reading>>,
    pub(crate) wanted: Wanted,
}

impl Ears {
    pub(crate) fn new(commands: mpsc::Receiver<Command>) -> Self {
        Self { commands, readings: None, wanted: Wanted::default() }
    }

    /// Begins to listen to the probe.
    pub(crate) fn open_to_probe(&mut self, readings: mpsc::Receiver<Reading>) {
        self.readings = Some(readings);
    }

    /// The next command or reading, as it comes. May be dropped while it waits.
    pub(crate) async fn hear(&mut self) -> Heard {
        tokio::select! {
            command = next_command(&mut self.commands) => Heard::Command(command),
            reading = next_reading(&mut self.readings) => Heard::Reading(reading),
        }
    }

    /// Notes the next command; a reading is thrown away. May be dropped while it waits.
    pub(crate) async fn note_next(&mut self) {
        match self.hear().await {
            Heard::Command(command) => {
                self.wanted.note(&command);
            }
            Heard::Reading(Reading::Requested(order)) => {
                self.wanted.note(&order.command);
            }
            Heard::Reading(_) => {}
        }
    }

    /// Throws away readings that were taken while the run was not held: they are old by now.
    pub(crate) fn drop_old_readings(&mut self) {
        let Some(readings) = &mut self.readings else { return };
        // The bound is the channel's size: the probe refills it slowly.
        for _ in 0..readings.max_capacity() {
            match readings.try_recv() {
                Ok(Reading::Requested(order)) => {
                    self.wanted.note(&order.command);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
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
    use underpin_dialect::Order;

    use super::*;

    #[test]
    fn what_was_asked_for_is_told_to_a_new_machine() {
        let mut wanted = Wanted::default();
        assert!(wanted.replay().is_empty());
        wanted.note(&Command::Pause);
        assert!(!wanted.note(&Command::Stop));
        assert_eq!(wanted.replay(), [Command::Pause, Command::Stop]);
        wanted.note(&Command::Resume);
        assert_eq!(wanted.replay(), [Command::Stop]);
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
        let (_commands, receiver) = mpsc::channel(1);
        let mut ears = Ears::new(receiver);
        let (readings, listener) = mpsc::channel(4);
        ears.open_to_probe(listener);
        let order =
            Order { command: Command::Abort, by: String::new(), at: String::new(), taken_at: None };
        for reading in [Reading::Backlog(7), Reading::Requested(order)] {
            readings.send(reading).await.unwrap();
        }
        ears.drop_old_readings();
        assert_eq!(ears.wanted.replay(), [Command::Abort]);
        readings.send(Reading::Backlog(8)).await.unwrap();
        assert_eq!(ears.hear().await, Heard::Reading(Reading::Backlog(8)));
    }
}
