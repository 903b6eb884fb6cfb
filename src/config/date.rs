//! TOML's dates as moments of the wall clock, and back. A date or time without an offset is UTC: a file means the same
//! on each machine, and no hour comes twice a year.

use std::time::Duration;

use toml_edit::{Date, Datetime, Offset, Time};

const DAY: i64 = 86_400;

/// Since the Unix epoch (a moment before it counts as the epoch); a date alone is its first moment. `None`: a time
/// without a date.
pub fn moment(written: &Datetime) -> Option<Duration> {
    let days = days_since_epoch(written.date?);
    let time = written.time.unwrap_or(Time { hour: 0, minute: 0, second: None, nanosecond: None });
    // A leap second is the first of the next minute.
    let of_day =
        i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    let offset = match written.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60,
        Some(Offset::Z) | None => 0,
    };
    let seconds = u64::try_from(days * DAY + of_day - offset);
    Some(seconds.map_or(Duration::ZERO, |seconds| Duration::new(seconds, time.nanosecond.unwrap_or(0))))
}

/// The same of a text, such as `2027-01-01` or `2027-01-01T18:00:00+01:00`.
pub fn parse(text: &str) -> Option<Duration> {
    moment(&text.parse().ok()?)
}

/// As it is written in a file: a date where the day begins, else date and time with `Z`, to the second.
pub fn written(moment: Duration) -> Datetime {
    let seconds = moment.as_secs();
    let (date, of_day) = (date(seconds / DAY as u64), seconds % DAY as u64);
    let part = |value: u64| u8::try_from(value).expect("less than 60");
    let (hour, minute, second) = (part(of_day / 3600), part(of_day / 60 % 60), part(of_day % 60));
    let time = Time { hour, minute, second: Some(second), nanosecond: None };
    match of_day {
        0 => Datetime { date: Some(date), time: None, offset: None },
        _ => Datetime { date: Some(date), time: Some(time), offset: Some(Offset::Z) },
    }
}

/// For people: `2027-01-01 18:00 UTC`.
pub fn shown(moment: Duration) -> String {
    let seconds = moment.as_secs();
    let minutes = seconds % DAY as u64 / 60;
    format!("{} {:02}:{:02} UTC", date(seconds / DAY as u64), minutes / 60, minutes % 60)
}

/// Of the proleptic Gregorian calendar: years begin in March, so that a leap day is a year's last; 400 of them have
/// 146,097 days.
fn days_since_epoch(date: Date) -> i64 {
    let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let year = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of it, from the epoch to the year 9999, which is the last that TOML can write.
fn date(days: u64) -> Date {
    let days = days.min(2_932_896) + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let part = |value: u64| u8::try_from(value).expect("a day or a month");
    Date { year: u16::try_from(year).expect("at most 9999"), month: part(month), day: part(day) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        parse(text).map(|moment| moment.as_secs())
    }

    /// The numbers are those of `date -u -d … +%s`.
    #[test]
    fn a_date_is_its_first_moment_and_a_time_without_offset_is_utc() {
        assert_eq!(seconds("2027-01-01"), Some(1_798_761_600));
        assert_eq!(seconds("2027-01-01T00:00:00"), Some(1_798_761_600));
        assert_eq!(seconds("2027-01-01T01:00:00+01:00"), Some(1_798_761_600));
        assert_eq!(seconds("2026-12-31 19:30:00-04:30"), Some(1_798_761_600));
        assert_eq!(seconds("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(seconds("1969-12-31"), Some(0));
        assert_eq!(seconds("9999-12-31"), Some(253_402_214_400));
        assert_eq!((seconds("18:00:00"), seconds("2027-02-29"), seconds("tomorrow")), (None, None, None));
    }

    #[test]
    fn a_moment_is_shown_and_written_as_people_write_it() {
        let moment = Duration::from_secs(1_798_826_400);
        assert_eq!(
            (shown(moment), written(moment).to_string()),
            ("2027-01-01 18:00 UTC".into(), "2027-01-01T18:00:00Z".into())
        );
        assert_eq!(written(Duration::from_secs(1_798_761_600)).to_string(), "2027-01-01");
        assert_eq!(written(Duration::MAX).date.map(|date| date.year), Some(9999));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in 0..253_402_300_800u64) {
            let moment = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&written(moment).to_string()), Some(moment));
        }
    }
}
