//! What a number means: its unit, how it is written, whether more of it is better.

use crate::work::Work;

/// One named number of a run; `key` is its name in JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    pub key: &'static str,
    /// Heads a column.
    pub title: &'static str,
    /// What it is divided by to be written in the unit of its title.
    pub scale: f64,
    /// Digits behind the point.
    pub digits: usize,
    /// None: told, but not compared.
    pub better: Option<Better>,
}

/// The good direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

const fn figure(key: &'static str, title: &'static str, scale: f64, digits: usize, better: Better) -> Figure {
    Figure { key, title, scale, digits, better: Some(better) }
}

pub const SPEED: Figure = figure("gbps", "Gb/s", 1.0, 2, Better::More);
pub const CPU: Figure = figure("cpu_s_per_gb", "CPU s/GB, daemons", 1.0, 2, Better::Less);
pub const PEAK: Figure = figure("rss_peak_mb", "RSS peak, MB", 1.0, 1, Better::Less);
pub const MEDIAN: Figure = figure("ping_median_us", "median, µs", 1.0, 0, Better::Less);
pub const P99: Figure = figure("ping_p99_us", "p99, µs", 1.0, 0, Better::Less);
pub const FLOOD_MEDIAN: Figure =
    figure("ping_flood_median_us", "back to back: median, µs", 1.0, 0, Better::Less);
pub const FLOOD_P99: Figure = figure("ping_flood_p99_us", "p99, µs", 1.0, 0, Better::Less);
pub const RATE: Figure = figure("pps", "1000 packets/s", 1000.0, 1, Better::More);
pub const REORDERED: Figure =
    Figure { key: "reordered", title: "reordered", scale: 1.0, digits: 0, better: None };
pub const DUPLICATED: Figure =
    Figure { key: "duplicated", title: "duplicated", scale: 1.0, digits: 0, better: None };

/// The sender could not send more: the tunnel may be faster than this.
pub const LIMITED: Figure =
    Figure { key: "sender_limited", title: "sender at its end", scale: 1.0, digits: 0, better: None };

impl Figure {
    /// In the unit of the title.
    pub fn write(&self, value: f64) -> String {
        format!("{:.*}", self.digits, value / self.scale)
    }

    /// The columns of a work's table.
    pub fn of(work: Work) -> &'static [Self] {
        match work {
            Work::Tcp | Work::Reverse | Work::Four | Work::Onecore | Work::Peers => &[SPEED, CPU, PEAK],
            Work::Ping => &[MEDIAN, P99, FLOOD_MEDIAN, FLOOD_P99],
            Work::Udp64 | Work::Udp64burst | Work::Udp512 | Work::Udp1400 => {
                &[RATE, REORDERED, DUPLICATED, LIMITED]
            }
        }
    }
}
