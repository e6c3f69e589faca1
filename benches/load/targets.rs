//! Who is measured, and how each is started: all in front of the same double, each on one core.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Fallible;
use crate::process::{Process, Start, free_address, installed};
use crate::work::{Dialect, KEY, Side};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// Nobody: the double, asked directly.
    Direct,
    PassThrough,
    Gateway,
    Nginx,
    Haproxy,
    Portkey,
    Litellm,
}

impl Name {
    pub(crate) const ALL: [Self; 6] =
        [Self::PassThrough, Self::Gateway, Self::Nginx, Self::Haproxy, Self::Portkey, Self::Litellm];

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PassThrough => "pass",
            Self::Gateway => "gemway",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Portkey => "portkey",
            Self::Litellm => "litellm",
        }
    }

    /// Those that take so much that they are measured once, at chat alone, unless there is time.
    pub(crate) const fn is_slow(self) -> bool {
        matches!(self, Self::Portkey | Self::Litellm)
    }
}

/// Where things are, and on which cores they run.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Files of this run.
    pub(crate) folder: PathBuf,
    /// Where the setup script put what is not Debian's.
    pub(crate) tools: PathBuf,
    pub(crate) gateway: PathBuf,
    pub(crate) core: Option<usize>,
    pub(crate) double_core: Option<usize>,
}

pub(crate) struct Target {
    pub(crate) name: Name,
    pub(crate) side: Side,
    /// None for the double, which nobody measures.
    pub(crate) process: Option<Process>,
    /// From its start to its first accepted connection.
    pub(crate) started: Duration,
}

impl Target {
    /// The same process, asked in Gemini's dialect.
    pub(crate) fn native(&self) -> Side {
        let headers = format!("x-goog-api-key: {KEY}\r\n");
        Side { address: self.side.address, dialect: Dialect::Gemini, headers }
    }
}

/// The double, in a process of its own.
pub(crate) async fn double(place: &Place) -> Fallible<Target> {
    let address = free_address()?;
    let arguments = vec!["--role".to_owned(), "double".to_owned(), address.to_string()];
    let this = std::env::current_exe()?;
    let core = place.double_core;
    let mut process = launch(place, this.as_os_str(), arguments, Vec::new(), (address, core), "double")?;
    let started = process.ready(Duration::from_secs(5)).await?;
    let side = Side { address, dialect: Dialect::Gemini, headers: String::new() };
    Ok(Target { name: Name::Direct, side, process: Some(process), started })
}

/// Starts one; nothing where it is not installed.
pub(crate) async fn start(name: Name, place: &Place, double: SocketAddr) -> Fallible<Option<Target>> {
    let address = free_address()?;
    let at = (address, place.core);
    let gemini = Side { address, dialect: Dialect::Gemini, headers: "x-goog-api-key: x\r\n".to_owned() };
    let openai =
        Side { address, dialect: Dialect::OpenAi, headers: format!("authorization: Bearer {KEY}\r\n") };
    let this = std::env::current_exe()?;
    let run = |program: &Path, arguments: &[&str], variables| {
        let arguments = arguments.iter().map(|&one| one.to_owned()).collect();
        launch(place, program.as_os_str(), arguments, variables, at, name.text())
    };
    let (side, mut process, within) = match name {
        Name::PassThrough => {
            let (from, to) = (address.to_string(), double.to_string());
            (gemini, run(&this, &["--role", "pass", &from, &to], vec![])?, 5)
        }
        Name::Gateway => {
            let file = write(place, "gemway.toml", &gemway(address, free_address()?, double))?;
            (openai, run(&place.gateway, &["serve", "--config", &file], vec![])?, 5)
        }
        Name::Nginx if installed("nginx") => {
            let file = write(place, "nginx.conf", &nginx(address, double, &place.folder))?;
            (gemini, run(Path::new("nginx"), &["-c", &file], path())?, 5)
        }
        Name::Haproxy if installed("haproxy") => {
            let file = write(place, "haproxy.cfg", &haproxy(address, double))?;
            (gemini, run(Path::new("haproxy"), &["-f", &file], path())?, 5)
        }
        Name::Portkey => {
            let script = place.tools.join("node_modules/@portkey-ai/gateway/build/start-server.js");
            if !script.is_file() {
                return Ok(None);
            }
            let port = format!("--port={}", address.port());
            let script = script.to_string_lossy();
            // It refuses addresses of its own machine unless they are listed.
            let trusted = [("TRUSTED_CUSTOM_HOSTS", "127.0.0.1,localhost".to_owned())];
            let headers = format!(
                "authorization: Bearer x\r\nx-portkey-provider: google\r\nx-portkey-custom-host: \
                 http://{double}/v1beta\r\n"
            );
            let side = Side { headers, ..openai };
            (side, run(Path::new("node"), &[&script, "--headless", &port], trusted.into())?, 30)
        }
        Name::Litellm => {
            let program = place.tools.join("venv/bin/litellm");
            if !program.is_file() {
                return Ok(None);
            }
            let file = write(place, "litellm.yaml", &litellm(double))?;
            let port = address.port().to_string();
            let arguments = ["--config", &file, "--host", "127.0.0.1", "--port", &port, "--num_workers", "1"];
            let variables = vec![
                ("LITELLM_LOCAL_MODEL_COST_MAP", "True".to_owned()),
                ("LITELLM_MODE", "PRODUCTION".to_owned()),
                ("LITELLM_LOG", "ERROR".to_owned()),
            ];
            (openai, run(&program, &arguments, variables)?, 120)
        }
        Name::Direct | Name::Nginx | Name::Haproxy => return Ok(None),
    };
    let started = process.ready(Duration::from_secs(within)).await;
    let started = started.map_err(|error| format!("{}: {error}", name.text()))?;
    Ok(Some(Target { name, side, process: Some(process), started }))
}

fn launch(
    place: &Place,
    program: &std::ffi::OsStr,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    (address, core): (SocketAddr, Option<usize>),
    name: &str,
) -> Fallible<Process> {
    let log = place.folder.join(format!("{name}.log"));
    Process::start(Start { program, arguments, variables, address, log: &log, core })
        .map_err(|error| format!("{name} does not start: {error}").into())
}

fn write(place: &Place, name: &str, text: &str) -> Fallible<String> {
    let file = place.folder.join(name);
    fs::write(&file, text)?;
    Ok(file.to_string_lossy().into_owned())
}

/// Debian keeps servers where an ordinary user's shell does not look.
#[expect(clippy::disallowed_methods, reason = "it is handed on, as a shell does")]
fn path() -> Vec<(&'static str, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    vec![("PATH", format!("{path}:/usr/sbin:/sbin"))]
}

/// A default installation: nothing is switched off, and the key has limits, none of which is reached.
fn gemway(address: SocketAddr, admin: SocketAddr, double: SocketAddr) -> String {
    format!(
        "listen = \"{address}\"\nadmin_listen = \"{admin}\"\n\n\
         [[sites]]\nname = \"double\"\nkind = \"gemini_api\"\nbase_url = \"http://{double}\"\napi_key = \"x\"\n\n\
         [[keys]]\nname = \"load\"\nsecret = \"{KEY}\"\nrequests_per_minute = 4000000000\n\
         tokens_per_minute = 1000000000000\nconcurrent_requests = 100000\n"
    )
}

fn nginx(address: SocketAddr, double: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n\
         worker_rlimit_nofile 20000;\n\
         events {{ worker_connections 20000; multi_accept on; }}\n\
         http {{\n\
         access_log off; tcp_nodelay on; keepalive_requests 1000000000; client_max_body_size 0;\n\
         client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n\
         uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
         upstream double {{ server {double}; keepalive 1024; keepalive_requests 1000000000; }}\n\
         server {{ listen {address} backlog=4096; location / {{\n\
         proxy_pass http://double; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;\n\
         }} }} }}\n"
    )
}

fn haproxy(address: SocketAddr, double: SocketAddr) -> String {
    format!(
        "global\n nbthread 1\n maxconn 9000\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n\
         option http-no-delay\n http-reuse always\n\
         frontend in\n bind {address} backlog 4096\n default_backend out\n\
         backend out\n server double {double} maxconn 20000 pool-max-conn 1024\n"
    )
}

fn litellm(double: SocketAddr) -> String {
    let model = |name: &str| {
        format!(
            "  - model_name: {name}\n    litellm_params:\n      model: gemini/{name}\n      api_key: x\n      \
             api_base: http://{double}/v1beta\n"
        )
    };
    let names = [crate::work::BURST, crate::work::PACED, crate::work::HELD, "gemini-embedding-001"];
    format!(
        "model_list:\n{}litellm_settings:\n  telemetry: false\ngeneral_settings:\n  master_key: {KEY}\n",
        names.map(model).concat()
    )
}
