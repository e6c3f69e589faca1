//! Responses: recorded cases both ways, the grammar of events, and every reply that Google really gave.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod golden;
mod grammar;
mod properties;
#[path = "../common/recordings.rs"]
mod recorded;
mod recordings;
#[path = "../common/streamed.rs"]
mod streams;
mod turns;

use bytes::{Bytes, BytesMut};
use gemway::catalog::Catalog;
use gemway::error::{Error, Result};
use gemway::translate::responses::{Ask, History, ResponsesMachine, Shape, reply, request};
use gemway::translate::{Backend, Failure, Machine, Stamp, Target};
use serde_json::{Value, json};

fn stamp() -> Stamp {
    streams::stamp("resp_1")
}

/// What the request `body` says to the answering half.
fn shape(body: &[u8], model: &str) -> Shape {
    let catalog = Catalog::builtin().unwrap();
    let traits = catalog.traits(model);
    let target = Target { model, traits, backend: Backend::GeminiApi, strict: false };
    let history = History::default();
    let asked = request::parse(body).unwrap();
    let Ask { shape, .. } = request::ask(asked, &history, &target, &*stamp().signatures).unwrap();
    shape
}

/// The events of a stream that comes in these pieces, and how it ended.
fn streamed(shape: &Shape, pieces: impl Iterator<Item = Bytes>) -> (String, Result<()>) {
    let (mut machine, mut out) = (ResponsesMachine::new(shape.clone(), stamp()), BytesMut::new());
    let result = streams::streamed(&mut machine, pieces, &mut out);
    if let Err(error) = &result {
        let failure = Failure {
            message: error.message(),
            kind: "server_error",
            code: error.explicit_code(),
            param: error.param(),
        };
        assert!(machine.fail(&failure, &mut out));
    }
    (String::from_utf8(out.to_vec()).unwrap(), result)
}

/// The events of an answer, decoded.
fn events(input: &Bytes) -> Result<Vec<Bytes>> {
    streams::decode(std::iter::once(input.clone()))
}

fn whole(shape: &Shape, input: &Bytes) -> Result<Value> {
    let made = reply(shape, &stamp(), &events(input)?)?;
    Ok(serde_json::from_slice(&made.finished.response).unwrap())
}

fn told(error: &Error) -> Value {
    json!({
        "kind": error.kind().as_str(),
        "code": error.explicit_code(),
        "param": error.param(),
        "message": error.message(),
    })
}
