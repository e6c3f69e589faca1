//! How the process is told to end.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// Two words: end when you are done, and end now.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Drain, then end.
    pub begin: CancellationToken,
    /// End at once.
    pub now: CancellationToken,
}

/// Turns SIGTERM and SIGINT into a [`Shutdown`]: the first begins, the second ends at once. Never returns but
/// with an error; run it beside the server.
///
/// # Errors
/// When signals cannot be listened for.
pub async fn watch(shutdown: &Shutdown) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    for word in [&shutdown.begin, &shutdown.now] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        word.cancel();
    }
    std::future::pending().await
}

/// SIGHUP, by which operators ask for the configuration to be read again.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Begins to listen; from here on SIGHUP does not end the process.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub fn listen() -> Result<Self> {
        signal(SignalKind::hangup()).map(Self).map_err(Error::internal)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // There will be no more: the process's signals are gone.
            std::future::pending::<()>().await;
        }
    }
}
