//! What can go wrong, said once.
//!
//! One error type crosses the whole house. It says *what* happened ([`Kind`]), *where* ([`Origin`]) and
//! whether trying again can help ([`Retry`]); the text for the client never holds internals, the `source`
//! is for the log and never reaches the client. How an error looks on the wire is decided in `api::render`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The gateway's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that may stand behind an [`Error`] as its cause.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// What happened. Closed on purpose: it is also the bounded metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The body or the framing cannot be read at all (bad JSON, bad encoding).
    Malformed,
    /// It can be read, and a value is wrong or missing.
    Invalid,
    /// It is legal OpenAI, and this gateway or this model cannot do it.
    Unsupported,
    /// No key, or a wrong one.
    Unauthenticated,
    /// The key is known and may not do this.
    Forbidden,
    /// No such path, model or stored thing.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// A protocol that is not spoken here; the plain one is.
    UpgradeRequired,
    /// A body in a media type or encoding we do not take.
    UnsupportedMedia,
    /// An `Expect` header other than `100-continue`.
    ExpectationFailed,
    /// Something else holds the resource.
    Conflict,
    /// The client sent its body too slowly.
    RequestTimeout,
    /// The body is over the limit.
    TooLarge,
    /// The path and query are over the limit.
    TargetTooLong,
    /// The prompt is longer than the model's window.
    ContextTooLong,
    /// A safety system refused the prompt, where the answer is an error and not a filtered reply.
    Blocked,
    /// Too many requests or tokens; waiting helps.
    RateLimited,
    /// A daily or paid quota is spent; waiting a little does not help.
    QuotaSpent,
    /// We, or Google, have no capacity now.
    Overloaded,
    /// Google refused our credential or our project: the operator must act.
    UpstreamRefused,
    /// Google could not be reached.
    UpstreamUnreachable,
    /// Google answered with what cannot be understood, or broke off.
    UpstreamBroken,
    /// Google reported a fault of its own.
    UpstreamFailed,
    /// A deadline passed.
    Timeout,
    /// The gateway is going down.
    Draining,
    /// The client left; nobody reads this.
    ClientGone,
    /// A fault of ours.
    Internal,
}

impl Kind {
    /// The metric and log label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UpgradeRequired => "upgrade_required",
            Self::UnsupportedMedia => "unsupported_media",
            Self::ExpectationFailed => "expectation_failed",
            Self::Conflict => "conflict",
            Self::RequestTimeout => "request_timeout",
            Self::TooLarge => "too_large",
            Self::TargetTooLong => "target_too_long",
            Self::ContextTooLong => "context_too_long",
            Self::Blocked => "blocked",
            Self::RateLimited => "rate_limited",
            Self::QuotaSpent => "quota_spent",
            Self::Overloaded => "overloaded",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamBroken => "upstream_broken",
            Self::UpstreamFailed => "upstream_failed",
            Self::Timeout => "timeout",
            Self::Draining => "draining",
            Self::ClientGone => "client_gone",
            Self::Internal => "internal",
        }
    }
}

/// Whose fault it is: decides the log level, and which objective burns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The caller sent something wrong.
    Client,
    /// The gateway decided or failed.
    Gateway,
    /// Google decided or failed.
    Upstream,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request will fail again.
    Never,
    /// Trying again soon may help.
    Soon,
    /// Trying again after this long may help (Google's `RetryInfo`, or our limiter's word).
    After(Duration),
}

/// One failure; one pointer wide.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    origin: Origin,
    retry: Retry,
    attempts: u32,
    status: Option<u16>,
    exhausted: bool,
    message: Cow<'static, str>,
    param: Option<Cow<'static, str>>,
    code: Option<Cow<'static, str>>,
    of_tokens: bool,
    source: Option<Source>,
}

// What makes errors is cold: so the compiler puts what does it apart from what runs for each request.
impl Error {
    /// An error of a kind, at a place, with a sentence for the client.
    #[cold]
    pub fn new(kind: Kind, origin: Origin, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            origin,
            retry: Retry::Never,
            attempts: 0,
            status: None,
            exhausted: false,
            message: bounded(message.into()),
            param: None,
            code: None,
            of_tokens: false,
            source: None,
        }))
    }

    /// A wrong or missing value; `param` is the JSON path of the field (`messages[0].role`).
    #[cold]
    pub fn invalid(param: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid, Origin::Client, message).at(param).code("invalid_value")
    }

    /// A legal field that this model or gateway cannot serve.
    #[cold]
    pub fn unsupported(param: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unsupported, Origin::Client, message).at(param).code("unsupported_parameter")
    }

    /// A fault of ours; the cause goes to the log, the client sees one neutral sentence.
    #[cold]
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(Kind::Internal, Origin::Gateway, "The gateway failed while handling this request.")
            .because(source)
    }

    /// Names the field, as a JSON path in the client's own request.
    #[must_use]
    #[cold]
    pub fn at(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// Overrides the machine-readable `code` that the kind implies.
    #[must_use]
    #[cold]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// The limit that was reached is one of tokens, not of requests.
    #[must_use]
    #[cold]
    pub fn of_tokens(mut self) -> Self {
        self.0.of_tokens = true;
        self
    }

    /// Whether the limit that was reached is one of tokens.
    pub fn is_of_tokens(&self) -> bool {
        self.0.of_tokens
    }

    /// Says whether trying again can help.
    #[must_use]
    #[cold]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Says how many calls to Google were made.
    #[must_use]
    #[cold]
    pub fn attempts(mut self, calls: u32) -> Self {
        self.0.attempts = calls;
        self
    }

    /// Says which HTTP status Google answered with.
    #[must_use]
    #[cold]
    pub fn answered(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Says that the gateway has tried again itself, so that the client's doing it too would only multiply.
    #[must_use]
    #[cold]
    pub fn exhausted(mut self) -> Self {
        self.0.exhausted = true;
        self
    }

    /// Keeps the cause, for the log only.
    #[must_use]
    #[cold]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `prefix` before the field path: `content` found while reading `messages[2]` becomes
    /// `messages[2].content`.
    #[must_use]
    #[cold]
    pub fn within(mut self, prefix: &str) -> Self {
        let inner = self.0.param.take().unwrap_or_default();
        let param = match inner.as_ref() {
            "" => prefix.to_owned(),
            inner if inner.starts_with('[') => format!("{prefix}{inner}"),
            inner => format!("{prefix}.{inner}"),
        };
        // The sentence names the place as well: both grow.
        for before in ["Missing required parameter: ", "Invalid type for ", "Invalid value for "] {
            let rest = self.0.message.strip_prefix(before).and_then(|rest| rest.strip_prefix('\''));
            if let Some(rest) = rest.and_then(|rest| rest.strip_prefix(inner.as_ref()))
                && rest.starts_with('\'')
            {
                self.0.message = format!("{before}'{param}{rest}").into();
                break;
            }
        }
        self.0.param = Some(param.into());
        self
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whose fault it is.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Whether trying again can help.
    pub fn retries(&self) -> Retry {
        self.0.retry
    }

    /// How many calls to Google were made, if that was counted.
    pub fn calls(&self) -> u32 {
        self.0.attempts
    }

    /// The HTTP status that Google answered with, if the failure is an answer.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Whether the gateway has tried again itself.
    pub fn is_exhausted(&self) -> bool {
        self.0.exhausted
    }

    /// The sentence for the client.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The field at fault, if one is.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref().filter(|param| !param.is_empty())
    }

    /// The machine-readable code, where it is more precise than the kind's own.
    pub fn explicit_code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.as_str(), self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("origin", &self.0.origin)
            .field("retry", &self.0.retry)
            .field("message", &self.0.message)
            .field("param", &self.0.param)
            .field("code", &self.0.code)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// The longest sentence, in bytes: a client that sends ten megabytes in place of a word is not sent them back.
const LONGEST: usize = 4000;

fn bounded(message: Cow<'static, str>) -> Cow<'static, str> {
    if message.len() <= LONGEST {
        return message;
    }
    let end = message.floor_char_boundary(LONGEST);
    format!("{}…", message.get(..end).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length() {
        let error = Error::invalid("role", format!("Invalid value: '{}'.", "ä".repeat(1 << 20)));
        assert!(error.message().len() <= LONGEST + '…'.len_utf8() && error.message().ends_with("ä…"));
        assert_eq!(Error::invalid("role", "short").message(), "short");
    }

    #[test]
    fn a_path_grows_from_the_inside_out() {
        let error = Error::invalid("text", "x").within("content[1]").within("messages[0]");
        assert_eq!(error.param(), Some("messages[0].content[1].text"));
        assert_eq!(Error::invalid("[3]", "x").within("messages").param(), Some("messages[3]"));
        assert_eq!(Error::invalid("", "x").param(), None);
        let error = Error::invalid("k", "Invalid type for 'k': number.").within("metadata");
        assert_eq!(error.message(), "Invalid type for 'metadata.k': number.");
    }

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
