//! Learning rate, weight decay and momentum over a run.

/// A linear rise, then half a cosine: SimDINO's form, by step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cosine {
    pub(crate) start: f64,
    pub(crate) base: f64,
    pub(crate) end: f64,
    pub(crate) n_warmup: u64,
    pub(crate) n_steps: u64,
}

impl Cosine {
    /// Returns the value at a step; the last step of the warm-up has the whole `base`, and the last step
    /// of all comes close to `end`.
    pub(crate) fn at(&self, step: u64) -> f64 {
        if step < self.n_warmup {
            let share = if self.n_warmup > 1 {
                as_f64(step) / as_f64(self.n_warmup - 1)
            } else {
                0.0
            };
            return self.start + (self.base - self.start) * share;
        }
        let done = as_f64(step - self.n_warmup) / as_f64((self.n_steps - self.n_warmup).max(1));
        self.end + 0.5 * (self.base - self.end) * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

/// MAE's learning rate at a fractional epoch: a linear rise, then half a cosine that reaches `min`.
pub(crate) fn mae_lr(epoch: f64, base: f64, min: f64, [warmup, n_epochs]: [f64; 2]) -> f64 {
    if epoch < warmup {
        return base * epoch / warmup;
    }
    let done = (epoch - warmup) / (n_epochs - warmup);
    min + (base - min) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[allow(clippy::cast_precision_loss, reason = "steps are far below 2^53")]
pub(crate) fn as_f64(n: u64) -> f64 {
    n as f64
}
