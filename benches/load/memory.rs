//! Memory, start and size: what does not need rounds.

use std::time::Duration;

use crate::Fallible;
use crate::drive::{closed, hold};
use crate::process::most_files;
use crate::targets::{Name, Place, Target, start};
use crate::wire::Connection;
use crate::work::Work;

/// Streams held, and the resident memory then, in KiB.
pub(crate) type Held = Vec<(usize, f64)>;

#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// After the start, before the first request, in KiB.
    pub(crate) idle: f64,
    pub(crate) held: Held,
    /// Processor time for each stream opened between the first thousand and the fifth, all connections new.
    pub(crate) opening: Duration,
    /// The highest mark while an image of 10 MiB is on its way, above what was used before, by the bytes of its body.
    pub(crate) image: f64,
    /// From start to the first accepted connection: the median of several.
    pub(crate) start: Duration,
}

/// Lets what was just opened or closed come to rest.
const REST: Duration = Duration::from_millis(400);

async fn fresh(name: Name, place: &Place, double: &Target) -> Fallible<Target> {
    Ok(start(name, place, double.side.address).await?.ok_or("not installed")?)
}

pub(crate) async fn measure(name: Name, place: &Place, double: &Target, most: usize) -> Fallible<Memory> {
    let mut memory = Memory::default();
    let mut starts = Vec::new();
    for _ in 0..5 {
        starts.push(fresh(name, place, double).await?.started);
    }
    starts.sort_unstable();
    memory.start = starts.get(2).copied().unwrap_or_default();

    let target = fresh(name, place, double).await?;
    let Some(process) = &target.process else { return Ok(memory) };
    tokio::time::sleep(REST).await;
    memory.idle = process.memory("VmRSS:")?;
    let mut held = Vec::new();
    // Each stream is a file at the client, two at the target and one at the double.
    let room = most_files().saturating_sub(200) / 2;
    for wanted in [1_000, 5_000, 10_000].into_iter().filter(|wanted| *wanted <= most) {
        let (before, spent) = (held.len(), process.processor()?);
        hold(&target.side, &mut held, wanted.min(room)).await?;
        if wanted == 5_000 {
            let opened = u32::try_from(held.len() - before)?.max(1);
            memory.opening = process.processor()?.saturating_sub(spent) / opened;
        }
        tokio::time::sleep(REST).await;
        memory.held.push((held.len(), process.memory("VmRSS:")?));
    }
    drop(held);
    drop(target);

    let target = fresh(name, place, double).await?;
    let Some(process) = &target.process else { return Ok(memory) };
    closed((&target.side, Some(process)), Work::Chat, 1, Duration::from_millis(100)).await?;
    let request = Work::Image.request(&target.side);
    process.forget_peak()?;
    let before = process.memory("VmRSS:")?;
    Connection::open(target.side.address).await?.ask(&request).await?;
    let peak = process.memory("VmHWM:")? - before;
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let body = request.len() as f64 / 1024.0;
    memory.image = peak / body;
    Ok(memory)
}

impl Memory {
    /// What each of so many open streams takes, in KiB.
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    pub(crate) fn each(&self, streams: usize) -> Option<f64> {
        let (held, kib) = self.held.iter().find(|(held, _)| *held == streams)?;
        Some((kib - self.idle) / *held as f64)
    }
}
