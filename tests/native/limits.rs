//! Limits, size and cancellation.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::fake::{Gateway, Google, answer};

#[tokio::test]
async fn a_limit_is_told_as_google_tells_it() {
    let google = Google::start(|_| answer(200, "application/json", "{}")).await;
    let gateway = Gateway::gemini(&google).await;
    let key = "x-goog-api-key: flash\r\n";
    let path = "/v1beta/models/gemini-3.8-flash:generateContent";
    assert_eq!(gateway.ask("POST", path, key, "{}").await.status, 200);
    let got = gateway.ask("POST", path, key, "{}").await;
    assert_eq!((got.status, &got.json()["error"]["status"]), (429, &"RESOURCE_EXHAUSTED".into()));
    assert!(got.header("retry-after").is_some());
    assert!(got.text().contains("google.rpc.RetryInfo"), "{}", got.text());
    assert_eq!(google.calls(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_call() {
    let (left, mut gone) = tokio::sync::mpsc::unbounded_channel::<()>();
    let google = Google::start(move |_| {
        struct Told(tokio::sync::mpsc::UnboundedSender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let told = Told(left.clone());
        let stream = futures_util::stream::unfold((told, 0), |(told, n)| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let frame = http_body::Frame::data(bytes::Bytes::from_static(b"data: {}\r\n\r\n"));
            Some((Ok::<_, gemway::body::BoxError>(frame), (told, n + 1)))
        });
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(stream));
        let mut response = http::Response::new(body);
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        response
    })
    .await;
    let gateway = Gateway::gemini(&google).await;
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let ask = "POST /v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse HTTP/1.1\r\nhost: x\r\n\
               x-goog-api-key: good\r\ncontent-length: 2\r\n\r\n{}";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut some = [0; 200];
    tokio::io::AsyncReadExt::read(&mut socket, &mut some).await.unwrap();
    drop(socket);
    tokio::time::timeout(Duration::from_secs(5), gone.recv()).await.unwrap().unwrap();
    gateway.counted("client_cancelled").await;
}
