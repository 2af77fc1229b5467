//! Counts Beijing days and months, by which WeChat counts calls. Reads no clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Beijing is eight hours ahead of UTC all year, in seconds.
const BEIJING_SECONDS: u64 = 8 * 3_600;
const DAY_SECONDS: u64 = 86_400;

fn unix_seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The number of the Beijing day since 1970-01-01.
pub(super) fn day(now: SystemTime) -> u64 {
    (unix_seconds(now) + BEIJING_SECONDS) / DAY_SECONDS
}

/// The number of the minute since the epoch.
pub(super) fn minute(now: SystemTime) -> u64 {
    unix_seconds(now) / 60
}

/// The number of the Beijing month, counted from the year 0.
pub(super) fn month(now: SystemTime) -> u64 {
    // The civil calendar repeats every 400 years of 146 097 days. Counting years from 1 March puts
    // the leap day last, so that month lengths follow one line: Hinnant, "chrono-compatible
    // low-level date algorithms", civil_from_days.
    let days = day(now) + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    // March of year y is month 12 y + 2.
    (era * 400 + year_of_era) * 12 + month_from_march + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_and_months_turn_at_four_in_the_afternoon_utc() {
        // (Unix seconds, year, month from 0, days since 1970 in Beijing); from `date -d`
        for (seconds, year, month_of_year, days) in [
            (0, 1970, 0, 0),
            (57_599, 1970, 0, 0),              // 1970-01-01 23:59:59 Beijing
            (57_600, 1970, 0, 1),              // 1970-01-02 00:00:00
            (951_753_599, 2000, 1, 11_015),    // 2000-02-28 23:59:59
            (951_753_600, 2000, 1, 11_016),    // 2000-02-29 00:00:00
            (951_840_000, 2000, 2, 11_017),    // 2000-03-01 00:00:00
            (1_767_196_799, 2025, 11, 20_453), // 2025-12-31 23:59:59
            (1_767_196_800, 2026, 0, 20_454),  // 2026-01-01 00:00:00
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(month(now), year * 12 + month_of_year, "{seconds}");
            assert_eq!(day(now), days, "{seconds}");
        }
        assert_eq!(day(UNIX_EPOCH - Duration::from_secs(1)), 0, "before the epoch is its day");
    }
}
