//! `creationTimestamp`: of several objects that contradict each other, some rules take the oldest.

/// When an object was created. An object that does not say is the oldest, as Istio has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Created {
    /// Since 1970.
    seconds: i64,
    nanoseconds: u32,
}

impl Created {
    /// Reads a time as RFC 3339 writes it; `None` for any other text.
    ///
    /// ```
    /// use douane_proto::resource::Created;
    /// let older = Created::parse("2024-02-29T23:59:59Z").unwrap();
    /// assert!(older < Created::parse("2024-03-01T00:00:00.5Z").unwrap());
    /// assert_eq!(older, Created::parse("2024-03-01T00:59:59+01:00").unwrap());
    /// assert_eq!(Created::parse("yesterday"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't'])?;
        let (year, rest_of_date) = date.split_once('-')?;
        let (month, day) = rest_of_date.split_once('-')?;
        let (time, offset) = split_offset(rest)?;
        let mut parts = time.splitn(3, ':');
        let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
        let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
        let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
        let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
        let is_time = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
        if !is_time || second > 60 {
            return None;
        }
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Some(Self { seconds, nanoseconds: nanoseconds(fraction)? })
    }
}

fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let at = text.rfind(['+', '-'])?;
    let (time, offset) = text.split_at_checked(at)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let seconds = number(hours, 2)? * 3600 + number(minutes, 2)? * 60;
    Some((time, if offset.starts_with('-') { -seconds } else { seconds }))
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn nanoseconds(fraction: &str) -> Option<u32> {
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    digits.parse().ok().filter(|_| is_number)
}

// Days since 1970-01-01 of the Gregorian calendar, counted from 1 March so that a leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}
