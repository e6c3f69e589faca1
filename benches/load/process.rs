//! Processes under test: started on a core of their own, watched through `/proc`, ended with the bench.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::Fallible;

/// Linux counts processor time in hundredths of a second for user programs.
const TICK: Duration = Duration::from_millis(10);

/// How long an ended child may take for its last words.
const END_WITHIN: Duration = Duration::from_secs(2);

/// A child, ended when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    began: Instant,
}

/// How a child is started.
pub(crate) struct Start<'a> {
    pub(crate) program: &'a OsStr,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where its output goes.
    pub(crate) log: &'a Path,
    /// The core that it runs on.
    pub(crate) core: Option<usize>,
}

impl Process {
    pub(crate) fn start(start: Start<'_>) -> Fallible<Self> {
        let mut command = match start.core {
            None => Command::new(start.program),
            Some(core) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &core.to_string()]).arg(start.program);
                pinned
            }
        };
        let log = File::options().create(true).append(true).open(start.log)?;
        command.args(start.arguments).envs(start.variables);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let began = Instant::now();
        Ok(Self { child: command.spawn()?, address: start.address, began })
    }

    /// Waits until it accepts connections; how long that took.
    pub(crate) async fn ready(&mut self, within: Duration) -> Fallible<Duration> {
        while self.began.elapsed() < within {
            if TcpStream::connect(self.address).await.is_ok() {
                return Ok(self.began.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended with {status}").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err("it did not listen in time".into())
    }

    /// Processor time so far, user and system, of the process and its descendants.
    pub(crate) fn processor(&self) -> Fallible<Duration> {
        let mut family = vec![self.child.id()];
        let mut ticks = 0;
        let all = processes()?;
        while let Some(id) = family.pop() {
            family.extend(all.iter().filter(|one| one.parent == id).map(|one| one.id));
            ticks += all.iter().find(|one| one.id == id).map_or(0, |one| one.ticks);
        }
        Ok(TICK * ticks)
    }

    /// A line of `/proc/PID/status` (`VmRSS:`, `VmHWM:`), in KiB.
    pub(crate) fn memory(&self, line: &str) -> Fallible<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib =
            status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
        Ok(kib.unwrap_or(0.0))
    }

    /// Lets the highest mark of its memory begin again at what it uses now.
    pub(crate) fn forget_peak(&self) -> Fallible<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }
}

impl Drop for Process {
    #[expect(clippy::disallowed_methods, reason = "nothing else is to happen meanwhile")]
    fn drop(&mut self) {
        // Asked first, so that what it counts for a profile-guided build is written.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let asked = Instant::now();
        while asked.elapsed() < END_WITHIN && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Seen {
    id: u32,
    parent: u32,
    ticks: u32,
}

fn processes() -> Fallible<Vec<Seen>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(id) = entry?.file_name().to_string_lossy().parse() else { continue };
        // It may have ended since the directory was read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        // The second field is the program's name in parentheses and may contain spaces.
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let field = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
        all.push(Seen { id, parent: field(1), ticks: field(11) + field(12) });
    }
    Ok(all)
}

pub(crate) fn free_address() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// How many files a process may have open.
pub(crate) fn most_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}

/// Whether a program can be started by this name.
pub(crate) fn installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .chain([Path::new("/usr/sbin").to_owned(), Path::new("/sbin").to_owned()])
        .any(|folder| folder.join(program).is_file())
}

/// Cores of the machine, whichever of them we may use.
pub(crate) fn cores() -> usize {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines().filter(|line| line.starts_with("processor")).count()
}
