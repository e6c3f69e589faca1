//! Going down with streams in flight.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::stage::{END, HELLO, Step, chat, event, gateway, opening, site, site_toml};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_of_every_stream_arrives() {
    let mut act = vec![Step::Say(opening())];
    for _ in 0..10 {
        act.extend([Step::Say(event(HELLO)), Step::Wait(Duration::from_millis(60))]);
    }
    act.extend([Step::Say(event(END)), Step::Say(b"0\r\n\r\n".to_vec())]);
    let google = site(vec![act]).await;
    let gateway = gateway(&site_toml("g", google.address, "g")).await;
    let whole = chat(gateway.address, "m", true, "").await.body;
    let (said, frames) = (whole.matches("Hello").count(), whole.matches("data: ").count());
    assert_eq!(said, 10);
    let running = join_all((0..40).map(|_| chat(gateway.address, "m", true, "")));
    let down = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        gateway.shutdown.begin.cancel();
    };
    let (replies, ()) = tokio::join!(running, down);
    for reply in replies {
        assert_eq!(reply.body.matches("Hello").count(), said, "{}", reply.body);
        assert_eq!(reply.body.matches("data: ").count(), frames);
        assert!(reply.body.contains("[DONE]") && reply.code().is_none());
    }
    // The second signal does not wait for the rest of the time that load balancers get.
    gateway.shutdown.now.cancel();
    for _ in 0..100 {
        if TcpStream::connect(gateway.address).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it still listens a second after the second signal");
}
