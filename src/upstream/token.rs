//! Access tokens: fetched once for all who wait, kept, renewed ahead of their end.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Request};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::Client;
use super::credential::{Exchange, Source};
use super::fail;
use crate::body;
use crate::clock::Clock;
use crate::error::Result;

const FETCH_WITHIN: Duration = Duration::from_secs(10);
const TRIES: u32 = 3;
const LARGEST_REPLY: usize = 1 << 20;
/// A token this close to its end is not used any more.
const MARGIN: Duration = Duration::from_secs(20);
/// Renewal begins this long before the end, or at four fifths of a short life.
const AHEAD: Duration = Duration::from_mins(5);

/// One access token, ready to be a header.
#[derive(Debug)]
pub(super) struct Token {
    /// `Bearer …`, marked sensitive.
    pub(super) header: HeaderValue,
    renew: Instant,
    end: Instant,
}

impl Token {
    fn new(secret: &str, life: Duration) -> Result<Self> {
        let now = Instant::now();
        Ok(Self {
            header: bearer(secret)?,
            renew: now + (life.mul_f64(0.8)).max(life.saturating_sub(AHEAD)),
            end: now + life.saturating_sub(MARGIN),
        })
    }

    fn usable(&self) -> bool {
        Instant::now() < self.end
    }
}

/// The header for an access token.
pub(super) fn bearer(secret: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("Bearer {secret}")).map_err(fail::credential)?;
    header.set_sensitive(true);
    Ok(header)
}

/// The tokens of one credential.
#[derive(Debug)]
pub(super) struct Tokens {
    source: Source,
    current: ArcSwapOption<Token>,
    /// Held while fetching; holds the time of the last failure and its text, for those who waited for it.
    fetching: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Tokens {
    pub(super) fn new(source: Source) -> Self {
        Self { source, current: ArcSwapOption::empty(), fetching: Mutex::new(None) }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// A usable token: the one at hand, else a new one. Many callers wait for the same fetch, also when it fails.
    pub(super) async fn get(&self, client: &Client) -> Result<Arc<Token>> {
        match self.current.load_full().filter(|token| token.usable()) {
            Some(token) => Ok(token),
            None => self.renew(client, Token::usable).await,
        }
    }

    /// Forgets a token that Google refused, unless a newer one has already taken its place.
    pub(super) fn invalidate(&self, refused: &Arc<Token>) {
        self.current.compare_and_swap(refused, None);
    }

    /// Keeps a good token at hand; never returns.
    pub(super) async fn keep_fresh(&self, client: &Client) {
        let mut pause = Duration::from_secs(5);
        loop {
            if let Some(token) = self.current.load_full() {
                tokio::time::sleep_until(token.renew).await;
            }
            match self.renew(client, |token| Instant::now() < token.renew).await {
                // Never more often than this, whatever life Google grants.
                Ok(_) => pause = Duration::from_secs(1),
                Err(error) => {
                    tracing::warn!(?error, "no Google access token; trying again in {pause:?}");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).clamp(Duration::from_secs(5), Duration::from_mins(1));
        }
    }

    async fn renew(&self, client: &Client, good: impl Fn(&Token) -> bool) -> Result<Arc<Token>> {
        let asked = Instant::now();
        let mut failure = self.fetching.lock().await;
        if let Some(token) = self.current.load_full().filter(|token| good(token)) {
            return Ok(token);
        }
        if let Some((when, text)) = &*failure
            && *when >= asked
        {
            return Err(fail::credential(text.to_string()));
        }
        match self.fetch(client).await {
            Ok(token) => {
                let token = Arc::new(token);
                self.current.store(Some(Arc::clone(&token)));
                *failure = None;
                Ok(token)
            }
            Err(error) => {
                let text =
                    std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                *failure = Some((Instant::now(), text.into()));
                Err(error)
            }
        }
    }

    async fn fetch(&self, client: &Client) -> Result<Token> {
        let granted = self.source.grant(client).await?;
        // Bounds what a broken endpoint may claim.
        Token::new(&granted.secret, granted.life.min(Duration::from_hours(24)))
    }
}

/// OAuth's two fields say what is wrong and hold no secret; nothing else of a refusal is kept.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
}

impl Exchange {
    /// Sends the exchange, again on faults that pass.
    pub(super) async fn run(&self, client: &Client) -> Result<Bytes> {
        let mut pause = Duration::from_millis(100);
        let mut tried = 1;
        loop {
            let once = tokio::time::timeout(FETCH_WITHIN, self.once(client)).await;
            let (text, passes) = match once {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(failure)) => failure,
                Err(_) => ("the token endpoint took too long".to_owned(), true),
            };
            if !passes || tried == TRIES {
                return Err(fail::credential(text));
            }
            tokio::time::sleep(pause).await;
            (tried, pause) = (tried + 1, pause * 3);
        }
    }

    /// One try; the failure is a text for the log and whether another try may help.
    async fn once(&self, client: &Client) -> Result<Bytes, (String, bool)> {
        let mut request = Request::new(body::full(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let response = client
            .request(request, 0)
            .await
            .map_err(|error| (format!("the token endpoint cannot be reached: {error}"), true))?;
        let status = response.status();
        let bytes =
            body::read(response.into_body(), LARGEST_REPLY).await.map_err(|e| (e.to_string(), true))?;
        if status.is_success() {
            return Ok(bytes);
        }
        let refusal: Refusal = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = format!(
            "the token endpoint answered {}: {} {}",
            status.as_u16(),
            refusal.error,
            refusal.error_description
        );
        Err((text, status.is_server_error() || status.as_u16() == 429))
    }
}

/// A signed statement that we are this service account, good for an hour (RS256).
pub(super) fn assertion(
    json: &str,
    email: &str,
    key_id: Option<&str>,
    audience: &str,
    scope: &str,
) -> Result<String> {
    // gcp_auth reads the key and signs; its own exchange has neither an early renewal nor a way to drop a token.
    let account = gcp_auth::CustomServiceAccount::from_json(json).map_err(fail::credential)?;
    let now = Clock::System.unix_seconds();
    let mut head = json!({"alg": "RS256", "typ": "JWT"});
    if let (Some(key_id), Some(head)) = (key_id, head.as_object_mut()) {
        head.insert("kid".to_owned(), key_id.into());
    }
    let claims = json!({"iss": email, "aud": audience, "scope": scope, "iat": now, "exp": now + 3600});
    let mut text = URL_SAFE_NO_PAD.encode(head.to_string());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut text);
    let signature = account.signer().sign(text.as_bytes()).map_err(fail::credential)?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client::new(Duration::from_secs(1), &super::super::Network::default()).unwrap()
    }

    #[tokio::test]
    async fn a_thousand_callers_wait_for_one_token() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let granting = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut heard = [0; 4096];
            assert!(socket.read(&mut heard).await.unwrap() > 0);
            tokio::time::sleep(Duration::from_millis(50)).await;
            let json = r#"{"access_token":"t","expires_in":3600}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", json.len());
            socket.write_all((head + json).as_bytes()).await.unwrap();
            // A second exchange, on this connection or on another one, would be heard.
            tokio::select! {
                more = socket.read(&mut heard) => assert_eq!(more.unwrap_or(0), 0),
                _ = listener.accept() => panic!("asked again"),
                () = tokio::time::sleep(Duration::from_millis(300)) => {}
            }
        });
        let (tokens, client) = (Tokens::new(Source::metadata(Some(&address))), client());
        let all = futures_util::future::join_all((0..1000).map(|_| tokens.get(&client))).await;
        assert!(all.iter().all(|token| token.as_ref().unwrap().header == "Bearer t"));
        granting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_still_good_is_used_while_no_other_can_be_had() {
        let (tokens, client) = (Tokens::new(Source::metadata(Some("127.0.0.1:1"))), client());
        let old = Arc::new(Token::new("old", Duration::from_secs(1000)).unwrap());
        tokens.current.store(Some(Arc::clone(&old)));
        tokio::time::advance(Duration::from_secs(850)).await;
        let trying = tokio::time::timeout(Duration::from_mins(1), tokens.keep_fresh(&client));
        assert!(trying.await.is_err(), "it never ends");
        assert!(tokens.fetching.lock().await.is_some(), "it has tried, in vain");
        assert!(Arc::ptr_eq(&tokens.get(&client).await.unwrap(), &old));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(tokens.get(&client).await.is_err(), "and not beyond its end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_ahead_of_its_end_and_not_used_at_its_end() {
        let now = Instant::now();
        for (life, renew, end) in [(3600, 3300, 3580), (600, 480, 580), (10, 8, 0)] {
            let token = Token::new("t", Duration::from_secs(life)).unwrap();
            assert_eq!(token.renew, now + Duration::from_secs(renew));
            assert_eq!(token.end, now + Duration::from_secs(end));
        }
        let token = Token::new("se-cret", Duration::from_mins(1)).unwrap();
        assert!(token.usable());
        assert!(!format!("{token:?}").contains("cret"));
        tokio::time::advance(Duration::from_secs(41)).await;
        assert!(!token.usable());
        assert!(Token::new("a\nb", Duration::from_mins(1)).is_err());
    }
}
