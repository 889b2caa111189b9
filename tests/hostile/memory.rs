//! Memory of another process, as counted by Linux.
//!
//! Rejected: a limit on its address space (the allocator reserves far more than it uses).

/// Bytes that are resident now.
pub fn resident(pid: u32) -> u64 {
    field(pid, "VmRSS:")
}

/// Peak of the resident bytes since the process began, or since [`forget_peak`].
pub fn peak(pid: u32) -> u64 {
    field(pid, "VmHWM:")
}

/// Resets the peak and returns it. If the kernel does not allow that, the old peak remains.
pub fn forget_peak(pid: u32) -> u64 {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    peak(pid)
}

/// Reads a figure in KiB and returns bytes, or 0 if the process has ended.
fn field(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) << 10
}
