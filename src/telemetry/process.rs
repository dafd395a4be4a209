//! What the operating system says of this process: the `process_*` metrics, in the names every Prometheus client uses.
//!
//! Read when scraped, not each second: counting descriptors takes a walk over all of them. What cannot be read (no
//! `/proc`) is left out.

use std::fmt::Write;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Appends the metrics.
pub(super) fn write(out: &mut String) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    metric(out, "cpu_seconds_total", "counter", "Processor time spent, user and system.", Some(cpu));
    let open = std::fs::read_dir("/proc/self/fd").ok();
    // Less the one that looks.
    let open = open.map(|fds| fds.count().saturating_sub(1) as f64);
    metric(out, "open_fds", "gauge", "Open file descriptors.", open);
    let max = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |max| max as f64);
    metric(out, "max_fds", "gauge", "Largest number of file descriptors.", Some(max));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    metric(out, "resident_memory_bytes", "gauge", "Memory in use.", kib(&status, "VmRSS:"));
    metric(out, "virtual_memory_bytes", "gauge", "Addresses in use.", kib(&status, "VmSize:"));
    metric(out, "start_time_seconds", "gauge", "When the process started.", start());
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: Option<f64>) {
    let Some(value) = value else { return };
    let text = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
    // Writing to a string does not fail.
    let _ = writeln!(out, "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {text}\n");
}

/// The bytes of a line like `VmRSS:   123 kB`.
fn kib(status: &str, field: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kib| kib * 1024.0)
}

fn start() -> Option<f64> {
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
    Some(boot + start_ticks(&own)? / rustix::param::clock_ticks_per_second() as f64)
}

/// Field 22. The second field is the program's name in brackets and may itself hold spaces and brackets.
fn start_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    #[test]
    fn every_figure_is_plausible() {
        let mut text = String::new();
        write(&mut text);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let start = value(&text, "process_start_time_seconds");
        // `btime` is whole seconds and the clock may have been set since boot.
        assert!((now - 86_400.0..=now + 2.0).contains(&start), "{start} {now}");
        assert!(value(&text, "process_cpu_seconds_total") > 0.0);
        assert!(value(&text, "process_open_fds") >= 3.0);
        assert!(value(&text, "process_max_fds") > value(&text, "process_open_fds"));
        let resident = value(&text, "process_resident_memory_bytes");
        assert!(resident > 1e6 && resident <= value(&text, "process_virtual_memory_bytes"));
        assert_eq!(text.matches("# TYPE").count(), 6);
    }

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_ticks(stat), Some(4711.0));
        assert_eq!(start_ticks("junk"), None);
        assert_eq!(kib("Name:\tx\nVmRSS:\t    2 kB\n", "VmRSS:"), Some(2048.0));
    }
}
