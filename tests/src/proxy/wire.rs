//! Where a client's packet ends and which statement it holds, in the two protocols.

use std::io::Read;

use anyhow::{Context, Result};

/// `COM_QUERY` and `COM_STMT_PREPARE`: the commands of MySQL whose payload is a statement.
const MYSQL_TEXT: [u8; 2] = [0x03, 0x16];

/// A packet larger than this is a stream out of step: no statement of a test comes near it.
const PACKET_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    MySql,
    Postgres,
}

impl Wire {
    /// Reads a client's next packet, whole, into `packet`; returns the statement in it.
    pub(super) fn read(
        self,
        client: &mut impl Read,
        is_first: bool,
        packet: &mut Vec<u8>,
    ) -> Result<Option<String>> {
        packet.clear();
        match self {
            Self::MySql => read_mysql(client, packet),
            // the start of a session bears no type
            Self::Postgres if is_first => read_sized(client, packet).map(|()| None),
            Self::Postgres => read_postgres(client, packet),
        }
    }
}

fn read_mysql(client: &mut impl Read, packet: &mut Vec<u8>) -> Result<Option<String>> {
    let mut header = [0_u8; 4];
    client.read_exact(&mut header)?;
    let [low, middle, high, sequence] = header;
    let length = u32::from_le_bytes([low, middle, high, 0]);
    packet.extend_from_slice(&header);
    read_more(client, packet, usize::try_from(length)?)?;
    let is_text = packet.get(4).is_some_and(|code| MYSQL_TEXT.contains(code));
    let text = packet.get(5..).filter(|_| sequence == 0 && is_text);
    Ok(text.map(|text| String::from_utf8_lossy(text).into_owned()))
}

/// A simple query, or a statement that is being prepared.
fn read_postgres(client: &mut impl Read, packet: &mut Vec<u8>) -> Result<Option<String>> {
    let mut kind = [0_u8; 1];
    client.read_exact(&mut kind)?;
    packet.extend_from_slice(&kind);
    read_sized(client, packet)?;
    let mut words = packet.get(5..).unwrap_or_default().split(|byte| *byte == 0);
    let text = match kind {
        [b'Q'] => words.next(),
        // behind the name under which it is prepared
        [b'P'] => words.nth(1),
        _ => None,
    };
    Ok(text.map(|text| String::from_utf8_lossy(text).into_owned()))
}

/// A length that counts itself, and what follows it.
fn read_sized(client: &mut impl Read, packet: &mut Vec<u8>) -> Result<()> {
    let mut length = [0_u8; 4];
    client.read_exact(&mut length)?;
    packet.extend_from_slice(&length);
    let length = usize::try_from(u32::from_be_bytes(length))?;
    read_more(client, packet, length.checked_sub(4).context("a length that cannot be")?)
}

fn read_more(client: &mut impl Read, packet: &mut Vec<u8>, bytes: usize) -> Result<()> {
    anyhow::ensure!(bytes <= PACKET_BYTES_MAX, "a packet of {bytes} bytes");
    let from = packet.len();
    packet.resize(from + bytes, 0);
    client.read_exact(packet.get_mut(from..).unwrap_or_default())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Wire;

    fn statements(wire: Wire, mut bytes: &[u8]) -> Vec<Option<String>> {
        let (mut found, mut packet, whole) = (Vec::new(), Vec::new(), bytes);
        let mut passed_on = Vec::new();
        while let Ok(statement) = wire.read(&mut bytes, found.is_empty(), &mut packet) {
            passed_on.extend_from_slice(&packet);
            found.push(statement);
        }
        assert_eq!(passed_on, whole, "every byte is passed on");
        found
    }

    #[test]
    fn statements_are_found_in_both_protocols() {
        let mysql = b"\x03\0\0\x01\x03no\x04\0\0\0\x03one\x01\0\0\0\x01";
        assert_eq!(statements(Wire::MySql, mysql), [None, Some("one".to_owned()), None]);
        let postgres = b"\0\0\0\x09start\
            Q\0\0\0\x08one\0\
            P\0\0\0\x0ds1\0two\0\0\0\
            X\0\0\0\x04";
        let found = statements(Wire::Postgres, postgres);
        assert_eq!(found, [None, Some("one".to_owned()), Some("two".to_owned()), None]);
    }
}
