//! Orders and settings as people write them: `pause`, `set max-lag=3s`. The command line reads the same
//! spelling (a test there holds the two together).

use underpin_core::machine::{Command, Settings};
use underpin_core::signal::{
    CHECKPOINT, DISK_FREE, LAG, LAG_BYTES, Limit, SLOT_BYTES, SLOT_SHARE, Setting, SwapWhen,
    WRITE_LATENCY,
};
use underpin_dialect::Given;

/// An order as it would be typed after `underpin`.
pub fn command_text(command: &Command) -> String {
    match command {
        Command::Pause => "pause".to_owned(),
        Command::Resume => "resume".to_owned(),
        Command::Swap => "swap".to_owned(),
        Command::Stop => "stop".to_owned(),
        Command::Abort => "abort".to_owned(),
        Command::Set(setting) => {
            let (name, value) = setting_text(setting);
            format!("set {name}={value}")
        }
    }
}

/// Name and value of a setting, as `max-lag` and `3s`.
pub fn setting_text(setting: &Setting) -> (String, String) {
    let off = || "off".to_owned();
    let (name, value) = match setting {
        Setting::MaxLag(ms) => ("max-lag", time(*ms)),
        Setting::MaxLoad(name, value) => ("max-load", limit_text(name, *value)),
        Setting::CriticalLoad(name, value) => ("critical-load", limit_text(name, *value)),
        Setting::WorkShare(permille) => ("nice", percent(f64::from(*permille))),
        Setting::RowsPerS(rows) => ("rate", rows.map_or_else(off, |rows| rows.to_string())),
        Setting::BytesPerS(bytes) => ("rate", bytes.map_or_else(off, size)),
        Setting::Workers(workers) => ("workers", workers.to_string()),
        Setting::ChunkMs(ms) => ("chunk-time", time(*ms)),
    };
    (name.to_owned(), value)
}

/// A limit as `running=50`, `write-latency=50ms`, `disk-free=20GB`, `running=off`.
pub fn limit_text(name: &str, value: Option<f64>) -> String {
    let value = match value {
        None => "off".to_owned(),
        Some(value) => match name {
            LAG | WRITE_LATENCY => time(whole(value)),
            SLOT_BYTES | DISK_FREE | LAG_BYTES => size(whole(value)),
            CHECKPOINT | SLOT_SHARE => percent(value),
            _ => value.to_string(),
        },
    };
    format!("{name}={value}")
}

/// The settings of a run as they would be given, the limits as they are just now.
pub(crate) fn settings_in_force(settings: &Settings, limits: &[Limit]) -> Vec<Given> {
    let mut given = Vec::new();
    let mut push = |name: &str, value: String| given.push(Given { name: name.to_owned(), value });
    push("workers", settings.workers.to_string());
    push("chunk-time", time(settings.chunk_ms_target));
    for limit in limits {
        match (limit.pause_at, limit.name == LAG) {
            (Some(ms), true) => push("max-lag", time(whole(ms))),
            (Some(value), false) => push("max-load", limit_text(&limit.name, Some(value))),
            (None, _) => {}
        }
        if let Some(value) = limit.abort_at {
            push("critical-load", limit_text(&limit.name, Some(value)));
        }
    }
    push("nice", percent(f64::from(settings.work_share)));
    for rate in [settings.rows_per_s.map(|rows| rows.to_string()), settings.bytes_per_s.map(size)]
        .into_iter()
        .flatten()
    {
        push("rate", rate);
    }
    let swap = match settings.swap_when {
        SwapWhen::Now => "now",
        SwapWhen::Asked => "wait",
        SwapWhen::Window => "window",
    };
    push("swap", swap.to_owned());
    given
}

/// Milliseconds in the largest unit that holds them whole.
fn time(ms: u64) -> String {
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// Bytes in the largest decimal unit that holds them whole.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn percent(permille: f64) -> String {
    format!("{}%", permille / 10.0)
}

/// A limit of milliseconds or bytes; it was read from a whole number.
fn whole(value: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = f64::max(value, 0.0) as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_the_options_are() {
        let cases = [
            (Setting::MaxLag(3_000), "max-lag=3s"),
            (Setting::MaxLag(1_500), "max-lag=1500ms"),
            (Setting::MaxLoad("running".into(), Some(50.0)), "max-load=running=50"),
            (Setting::MaxLoad("queue".into(), Some(0.5)), "max-load=queue=0.5"),
            (Setting::MaxLoad("running".into(), None), "max-load=running=off"),
            (Setting::CriticalLoad("disk-free".into(), Some(2e10)), "critical-load=disk-free=20GB"),
            (Setting::MaxLoad("write-latency".into(), Some(50.0)), "max-load=write-latency=50ms"),
            (Setting::MaxLoad("checkpoint".into(), Some(800.0)), "max-load=checkpoint=80%"),
            (Setting::WorkShare(500), "nice=50%"),
            (Setting::WorkShare(125), "nice=12.5%"),
            (Setting::RowsPerS(Some(20_000)), "rate=20000"),
            (Setting::BytesPerS(Some(20_000_000)), "rate=20MB"),
            (Setting::BytesPerS(None), "rate=off"),
            (Setting::Workers(2), "workers=2"),
            (Setting::ChunkMs(200), "chunk-time=200ms"),
        ];
        for (setting, text) in cases {
            assert_eq!(command_text(&Command::Set(setting)), format!("set {text}"));
        }
        assert_eq!(command_text(&Command::Pause), "pause");
    }
}
