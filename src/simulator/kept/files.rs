//! Files, and the resumable protocol by which they come.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::validate::Refusal;
use super::super::{JSON, Query, head, json_reply};
use super::{Answered, Ask, Kept, Shelf, empty, now, time, unknown};
use crate::body::{self, Body};

const LIFE: u64 = 48 * 3_600_000;
const LARGEST: u64 = 2 << 30;
const JSONL: &str = "application/jsonl";
/// How long audio and video are looked at before they can be used.
const LOOKING: u64 = 300;

/// The largest file whose content stays, and how much of all contents does.
const READABLE: usize = 4 << 20;
const READABLE_IN_ALL: usize = 64 << 20;

/// One file. Of most the content is gone; what is known of them stays.
#[derive(Clone, Debug)]
pub(super) struct File {
    name: String,
    display: Option<String>,
    mime: String,
    size: u64,
    hash: String,
    made: u64,
    /// Of small texts: a batch may be made of them.
    content: Option<Bytes>,
    /// Made here, and there to be fetched.
    generated: bool,
}

/// An upload that has begun.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    wanted: Option<String>,
    display: Option<String>,
    mime: String,
    announced: Option<u64>,
    taken: u64,
    hash: Sha256,
    content: Option<Vec<u8>>,
    busy: bool,
}

impl File {
    fn state(&self) -> &'static str {
        let slow = self.mime.starts_with("video/") || self.mime.starts_with("audio/");
        if slow && now() < self.made + LOOKING { "PROCESSING" } else { "ACTIVE" }
    }

    fn show(&self) -> Value {
        let mut shown = json!({
            "name": self.name,
            "mimeType": self.mime,
            "sizeBytes": self.size.to_string(),
            "createTime": time(self.made),
            "updateTime": time(self.made),
            "expirationTime": time(self.made + LIFE),
            "sha256Hash": self.hash,
            "uri": format!("https://generativelanguage.googleapis.com/v1beta/{}", self.name),
            "state": self.state(),
            "source": if self.generated { "GENERATED" } else { "UPLOADED" },
        });
        let Some(map) = shown.as_object_mut() else { return shown };
        if let Some(display) = &self.display {
            map.insert("displayName".into(), display.as_str().into());
        }
        if self.generated {
            let address = format!(
                "https://generativelanguage.googleapis.com/download/v1beta/{}:download?alt=media",
                self.name
            );
            map.insert("downloadUri".into(), address.into());
        }
        shown
    }
}

fn denied(id: &str) -> Refusal {
    let text = format!("You do not have permission to access the File {id} or it may not exist.");
    Refusal::new(403, "PERMISSION_DENIED", text)
}

pub(super) fn serve(kept: &Kept, ask: &Ask<'_>) -> Answered {
    kept.files.lock().retain(|file| now() < file.made + LIFE);
    let (id, rest) = ask.named();
    match (ask.method.as_str(), id, rest) {
        ("GET", "", "") if ask.path == "files" => {
            let shelf = kept.files.lock();
            let page = shelf.page(&ask.query, ("pageSize", "pageToken"), "files", |_, file| file.show());
            page.map(|page| json_reply(&page))
        }
        ("GET", id, "") => {
            kept.files.lock().get(id).map(|file| json_reply(&file.show())).ok_or_else(|| denied(id))
        }
        ("GET", id, "download") => {
            let mut shelf = kept.files.lock();
            let file = shelf.get(id).ok_or_else(|| denied(id))?;
            let content =
                file.content.as_ref().filter(|_| file.generated && ask.query.get("alt") == Some("media"));
            let content =
                content.ok_or_else(|| Refusal::invalid("Only generated files can be downloaded."))?;
            Ok(head(StatusCode::OK, JSONL, body::full(content.clone())))
        }
        ("DELETE", id, "") => kept.files.lock().take(id).map(|_| empty()).ok_or_else(|| denied(id)),
        _ => Err(unknown(ask)),
    }
}

/// The lines of a file that a batch is made of.
pub(super) fn lines(kept: &Kept, name: &str) -> Result<Bytes, Refusal> {
    let id = name.strip_prefix("files/").unwrap_or(name);
    let mut shelf = kept.files.lock();
    let file = shelf.get(id).ok_or_else(|| denied(id))?;
    let unfit =
        || Refusal::invalid(format!("The File {id} is not a JSONL file that a batch can be made of."));
    file.content.clone().ok_or_else(unfit)
}

/// Keeps a file that was made here, and returns its name.
pub(super) fn generate(kept: &Kept, content: Vec<u8>) -> String {
    let mut shelf = kept.files.lock();
    let name = shelf.name("batch-");
    let file = File {
        name: format!("files/{name}"),
        display: None,
        mime: JSONL.to_owned(),
        size: content.len() as u64,
        hash: hash(&Sha256::digest(&content)),
        made: now(),
        content: Some(content.into()),
        generated: true,
    };
    put(&mut shelf, name.clone(), file);
    format!("files/{name}")
}

/// Puts a file on its shelf; of the oldest the contents go when they are too much together.
fn put(shelf: &mut Shelf<File>, name: String, file: File) {
    shelf.put(name, file);
    let mut room = READABLE_IN_ALL;
    for (_, file) in shelf.things.iter_mut().rev() {
        let size = file.content.as_ref().map_or(0, Bytes::len);
        match room.checked_sub(size) {
            Some(left) => room = left,
            None => file.content = None,
        }
    }
}

/// The digest's hexadecimal form, once more in base64: as Google does it.
fn hash(digest: &[u8]) -> String {
    let hex: String = digest.iter().fold(String::new(), |mut hex, byte| {
        use std::fmt::Write as _;
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    STANDARD.encode(hex)
}

/// Refuses a reference to a file of ours that is not there, or not yet.
pub(in crate::simulator) fn check(kept: &Kept, uri: &str) -> Result<(), Refusal> {
    let Some((host, id)) = uri.rsplit_once("/files/") else { return Ok(()) };
    if !host.contains("generativelanguage.googleapis.com") {
        return Ok(());
    }
    let mut shelf = kept.files.lock();
    let file = shelf.get(id).ok_or_else(|| denied(id))?;
    if file.state() == "ACTIVE" {
        return Ok(());
    }
    let text = format!("The File {id} is not in an ACTIVE state and usage is not allowed.");
    Err(Refusal::new(400, "FAILED_PRECONDITION", text))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// One request of an upload: its start, a piece, a question, or all of it at once.
pub(super) async fn upload(kept: &Kept, request: Request<Body>) -> Answered {
    let (parts, mut incoming) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let command = text(&parts.headers, "x-goog-upload-command").unwrap_or_default().to_ascii_lowercase();
    let commands: Vec<&str> = command.split(',').map(str::trim).collect();
    let query = Query(parts.uri.query().unwrap_or_default());
    if !path.ends_with("/files") {
        return Err(Refusal::new(404, "NOT_FOUND", "Method not found."));
    }
    if let Some(id) = query.get("upload_id") {
        let held = kept.uploads.lock().get(id).filter(|upload| !upload.busy).map(|upload| {
            upload.busy = true;
            upload.clone()
        });
        let upload =
            held.ok_or_else(|| Refusal::new(404, "NOT_FOUND", "Upload has already been terminated."))?;
        let piece = piece(upload, &parts.headers, &commands, &mut incoming).await;
        return match piece {
            Ok(upload) if commands.contains(&"finalize") => finish(kept, id, &upload),
            Ok(mut upload) => {
                upload.busy = false;
                let taken = upload.taken;
                if let Some(held) = kept.uploads.lock().get(id) {
                    *held = upload;
                }
                let mut response = head(StatusCode::OK, JSON, body::empty());
                response.headers_mut().insert("x-goog-upload-status", HeaderValue::from_static("active"));
                response.headers_mut().insert("x-goog-upload-size-received", taken.into());
                Ok(response)
            }
            Err(refusal) => {
                if let Some(held) = kept.uploads.lock().get(id) {
                    held.busy = false;
                }
                Err(refusal)
            }
        };
    }
    match text(&parts.headers, "x-goog-upload-protocol").map(str::to_ascii_lowercase).as_deref() {
        Some("resumable") if commands == ["start"] => start(kept, &parts, incoming).await,
        Some("raw") => {
            let mime = text(&parts.headers, "content-type").unwrap_or("application/octet-stream").to_owned();
            let upload = Upload {
                wanted: None,
                display: None,
                mime,
                announced: None,
                taken: 0,
                hash: Sha256::new(),
                content: Some(Vec::new()),
                busy: true,
            };
            let upload = take(upload, &mut incoming).await?;
            finish(kept, "", &upload)
        }
        _ => Err(Refusal::invalid("Upload protocol is not supported; use resumable.")),
    }
}

async fn start(kept: &Kept, parts: &http::request::Parts, incoming: Body) -> Answered {
    let body = body::read(incoming, 1 << 20).await.unwrap_or_default();
    let asked: Value = if body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| Refusal::invalid(format!("Invalid JSON payload received. {error}")))?
    };
    let file = asked.get("file").cloned().unwrap_or_default();
    let said = |camel: &str, snake: &str| {
        file.get(camel).or_else(|| file.get(snake)).and_then(Value::as_str).map(str::to_owned)
    };
    let wanted = said("name", "name").map(|name| name.trim_start_matches("files/").to_owned());
    if let Some(name) = &wanted {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 40 || !name.bytes().all(fine) {
            return Err(Refusal::invalid("* CreateFileRequest.file.name: invalid name\n"));
        }
        if kept.files.lock().get(name).is_some() {
            return Err(Refusal::new(
                409,
                "ALREADY_EXISTS",
                format!("Requested entity already exists: files/{name}"),
            ));
        }
    }
    let mime = text(&parts.headers, "x-goog-upload-header-content-type").map(str::to_owned);
    let announced =
        text(&parts.headers, "x-goog-upload-header-content-length").and_then(|size| size.parse().ok());
    if announced.is_some_and(|size: u64| size > LARGEST) {
        return Err(Refusal::invalid("File size is too large. Max 2147483648 bytes."));
    }
    let upload = Upload {
        wanted,
        display: said("displayName", "display_name"),
        mime: said("mimeType", "mime_type").or(mime).unwrap_or_else(|| "application/octet-stream".to_owned()),
        announced,
        taken: 0,
        hash: Sha256::new(),
        content: Some(Vec::new()),
        busy: false,
    };
    let mut shelf = kept.uploads.lock();
    let id = shelf.name("AB");
    let host = text(&parts.headers, "host").or(parts.uri.authority().map(http::uri::Authority::as_str));
    let address = format!(
        "http://{}{}?upload_id={id}&upload_protocol=resumable",
        host.unwrap_or("simulator.invalid"),
        parts.uri.path()
    );
    shelf.put(id, upload);
    drop(shelf);
    let mut response = head(StatusCode::OK, JSON, body::empty());
    let headers = response.headers_mut();
    headers.insert("x-goog-upload-status", HeaderValue::from_static("active"));
    headers.insert("x-goog-upload-chunk-granularity", HeaderValue::from_static("8388608"));
    if let Ok(address) = HeaderValue::from_str(&address) {
        headers.insert("x-goog-upload-url", address.clone());
        headers.insert("x-goog-upload-control-url", address);
    }
    Ok(response)
}

async fn piece(
    upload: Upload,
    headers: &HeaderMap,
    commands: &[&str],
    incoming: &mut Body,
) -> Result<Upload, Refusal> {
    if commands.contains(&"query") {
        return Ok(upload);
    }
    if !commands.contains(&"upload") {
        return if commands.contains(&"finalize") {
            Ok(upload)
        } else {
            Err(Refusal::invalid("Upload command is not valid."))
        };
    }
    let offset = text(headers, "x-goog-upload-offset").and_then(|offset| offset.parse::<u64>().ok());
    if offset != Some(upload.taken) {
        return Err(Refusal::invalid(format!("Upload offset is not {}.", upload.taken)));
    }
    take(upload, incoming).await
}

async fn take(mut upload: Upload, incoming: &mut Body) -> Result<Upload, Refusal> {
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_broken| Refusal::invalid("The upload broke off."))?;
        if let Ok(data) = frame.into_data() {
            upload.taken += data.len() as u64;
            upload.hash.update(&data);
            upload.content = upload.content.filter(|content| content.len() + data.len() <= READABLE);
            if let Some(content) = &mut upload.content {
                content.extend_from_slice(&data);
            }
        }
        if upload.taken > LARGEST {
            return Err(Refusal::invalid("File size is too large. Max 2147483648 bytes."));
        }
    }
    Ok(upload)
}

fn finish(kept: &Kept, id: &str, upload: &Upload) -> Answered {
    kept.uploads.lock().take(id);
    if upload.announced.is_some_and(|announced| announced != upload.taken) {
        return Err(Refusal::invalid("The number of bytes received is not what was announced."));
    }
    let mut shelf = kept.files.lock();
    let id = upload.wanted.clone().unwrap_or_else(|| shelf.name("").chars().take(12).collect());
    let text = upload.mime.contains("json") || upload.mime.starts_with("text/");
    let file = File {
        name: format!("files/{id}"),
        display: upload.display.clone(),
        mime: upload.mime.clone(),
        size: upload.taken,
        hash: hash(&upload.hash.clone().finalize()),
        made: now(),
        content: upload.content.clone().filter(|_| text).map(Bytes::from),
        generated: false,
    };
    let mut response: Response<Body> = json_reply(&json!({ "file": file.show() }));
    put(&mut shelf, id, file);
    response.headers_mut().insert("x-goog-upload-status", HeaderValue::from_static("final"));
    Ok(response)
}
