//! Bodies: the one alias everybody uses, bounded reading, and bodies made of ready pieces.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

mod lent;

use lent::Lent;

/// What may go wrong inside a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every request and reply inside the gateway.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

fn never(error: Infallible) -> BoxError {
    match error {}
}

/// A body with nothing in it.
pub fn empty() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

/// A body of one piece, with its length known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// A body of ready pieces, sent without being joined, with its length known.
pub fn rope(rope: Rope) -> Body {
    rope.map_err(never).boxed_unsync()
}

/// Ready pieces of one body. Cloning copies handles, never data: a retry costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Rope(pub(crate) std::collections::VecDeque<Bytes>);

impl Rope {
    /// Appends a piece; empty ones are left out.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.0.push_back(piece);
        }
    }

    /// Appends the pieces of another one.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All pieces as one; copies unless there is just one.
    pub fn join(self) -> Bytes {
        let mut pieces = self.0.into_iter();
        match (pieces.next(), pieces.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only,
            (Some(first), Some(second)) => {
                let mut whole = BytesMut::from(first);
                whole.extend_from_slice(&second);
                for piece in pieces {
                    whole.extend_from_slice(&piece);
                }
                whole.freeze()
            }
        }
    }
}

impl From<Bytes> for Rope {
    fn from(bytes: Bytes) -> Self {
        let mut rope = Self::default();
        rope.push(bytes);
        rope
    }
}

impl HttpBody for Rope {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is longer than the limit (in bytes).
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
    /// It broke off.
    #[error("the body broke off")]
    Broken(#[source] BoxError),
}

/// Up to this many bytes a body that came in one piece is copied out of the buffer that it was read into.
const SMALL: usize = 4 << 10;

/// Bytes that came one after the other.
enum Joined {
    Short(BytesMut),
    Long(Lent),
}

impl Joined {
    fn new(expected: usize) -> Self {
        if expected < lent::LONG {
            Self::Short(BytesMut::with_capacity(expected))
        } else {
            Self::Long(Lent::new(expected))
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Short(bytes) => bytes.len(),
            Self::Long(bytes) => bytes.len(),
        }
    }

    fn extend(&mut self, more: &[u8]) {
        match self {
            Self::Short(bytes) if bytes.len() + more.len() < lent::LONG => bytes.extend_from_slice(more),
            Self::Short(bytes) => {
                let mut long = Lent::new(2 * lent::LONG);
                long.extend(bytes);
                long.extend(more);
                *self = Self::Long(long);
            }
            Self::Long(bytes) => bytes.extend(more),
        }
    }

    fn freeze(self) -> Bytes {
        match self {
            Self::Short(bytes) => bytes.freeze(),
            Self::Long(bytes) => bytes.freeze(),
        }
    }
}

/// Reads a body to its end, at most `limit` bytes, into one piece.
///
/// A body that comes as a single frame is not copied unless it is small; else each byte is copied once into a buffer that is
/// sized by `Content-Length` where there is one.
pub async fn read<B>(body: B, limit: usize) -> Result<Bytes, ReadError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(ReadError::TooLarge(limit));
    }
    let expected = usize::try_from(hint.exact().unwrap_or(0)).unwrap_or(0);
    let mut body = std::pin::pin!(body);
    let (mut first, mut whole): (Option<Bytes>, Option<Joined>) = (None, None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| ReadError::Broken(error.into()))?.into_data() else { continue };
        let whole = match (&mut whole, first.take()) {
            (Some(whole), _) => whole,
            (None, Some(first)) => {
                let begun = Joined::new(expected.min(limit).max(first.len() + data.len()));
                let whole = whole.insert(begun);
                whole.extend(&first);
                whole
            }
            (None, None) => {
                first = Some(data);
                continue;
            }
        };
        if whole.len() + data.len() > limit {
            return Err(ReadError::TooLarge(limit));
        }
        whole.extend(&data);
    }
    if let Some(whole) = whole {
        return Ok(whole.freeze());
    }
    match first {
        Some(only) if only.len() > limit => Err(ReadError::TooLarge(limit)),
        // What came in one piece is a window into the socket's buffer, and keeps all of it: for as long as a stream is
        // open, where the request is kept to be resumed. A copy of so little costs less than the second buffer that
        // the connection would take meanwhile.
        Some(only) if only.len() <= SMALL => Ok(Bytes::copy_from_slice(&only)),
        Some(only) => Ok(only),
        None => Ok(Bytes::new()),
    }
}
