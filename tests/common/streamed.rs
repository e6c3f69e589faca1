//! What a stream's translator needs, and what it makes of a stream that comes in pieces.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gemway::error::Result;
use gemway::ids::Ids;
use gemway::memory::Memory;
use gemway::sse::Decoder;
use gemway::translate::{Machine, Stamp};

pub(crate) fn stamp(id: &str) -> Stamp {
    Stamp {
        id: id.to_owned(),
        created: 1_795_256_380,
        model: "gemini-test".to_owned(),
        ids: Arc::new(Ids::counted()),
        signatures: Arc::new(Memory::default()).view("test"),
    }
}

/// The events in some bytes, however they come.
pub(crate) fn decode(pieces: impl Iterator<Item = Bytes>) -> Result<Vec<Bytes>> {
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece, &mut events)?;
    }
    decoder.finish(&mut events)?;
    Ok(events)
}

/// Sends a stream through a machine, each event as soon as it is whole.
pub(crate) fn streamed(
    machine: &mut impl Machine,
    pieces: impl Iterator<Item = Bytes>,
    out: &mut BytesMut,
) -> Result<()> {
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece, &mut events)?;
        for event in events.drain(..) {
            machine.push(&event, out)?;
        }
    }
    decoder.finish(&mut events)?;
    for event in events.drain(..) {
        machine.push(&event, out)?;
    }
    machine.finish(out).map(|_| ())
}
