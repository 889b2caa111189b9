//! Memory of another process, as Linux counts it.
//!
//! Rejected: a limit on its address space (the allocator reserves far more than it uses).

/// Bytes that a process has resident now.
pub fn resident(pid: u32) -> u64 {
    field(pid, "VmRSS:")
}

/// The most that it had resident since it began, or since [`forget_peak`].
pub fn peak(pid: u32) -> u64 {
    field(pid, "VmHWM:")
}

/// Begins a new peak and gives it; where the kernel does not allow that, the old one goes on.
pub fn forget_peak(pid: u32) -> u64 {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    peak(pid)
}

/// A figure in KiB; 0 where the process has ended.
fn field(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) << 10
}
