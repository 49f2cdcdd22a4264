//! One figure of the report: curves over the steps, drawn by the browser from inline SVG.
//!
//! The SVG is stretched to the figure's place and holds lines only; ticks and names are text beside it, so
//! that they keep their size on every screen.

use std::fmt::Write as _;

use m3ret_pretrain::report::words::{escape, significant};
use m3ret_pretrain::report::{Bin, Series};

/// Side of the coordinates that curves are written in.
const SIDE: f64 = 1000.0;
/// Curves of fewer points show each of them.
const MAX_DOTS: usize = 48;
/// Larger values are drawn as this one, so that sums of two stay finite.
const LARGEST: f64 = 1e30;
/// Shares below this are drawn as small.
const SMALL_SHARE: f64 = 0.05;
/// Smallest ratio of the highest to the middle value at which an axis may be logarithmic.
const LOG_RATIO: f64 = 20.0;

/// A figure.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// What the curve is and what to look for, for someone who has never seen one.
    pub(super) caption: String,
    /// The most important first; those without a series are left out.
    pub(super) lines: Vec<Line<'a>>,
    pub(super) axis: Axis,
    /// The step at the right edge.
    pub(super) last_step: u64,
}

/// A curve.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) series: Option<&'a Series>,
    pub(super) look: Look,
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The first colour.
    First,
    /// The second colour.
    Second,
    /// Grey and dashed: what others are compared with.
    Reference,
}

/// What the vertical axis spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// The values.
    Values,
    /// Zero and the values.
    FromZero,
    /// Zero and the values, which are shares, in percent.
    Percent,
    /// The values; by powers of ten, where the highest is far from the others.
    MaybeLog,
}

/// The vertical axis as it is drawn.
struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

impl Look {
    fn class(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
            Self::Reference => "reference",
        }
    }
}

impl Chart<'_> {
    /// Returns the figure, or nothing where no line has a value.
    pub(super) fn html(&self) -> String {
        let drawn: Vec<(&Line<'_>, &Series)> = self
            .lines
            .iter()
            .filter_map(|line| Some((line, line.series?)))
            .collect();
        if drawn.iter().all(|(line, _)| line.look == Look::Reference) {
            return String::new();
        }
        let scale = self.scale(&drawn);
        let title = escape(self.title);
        let log = if scale.is_log {
            " <small>logarithmic scale</small>"
        } else {
            ""
        };
        format!(
            "<figure class=\"chart\"><h3>{title}{log}</h3>{legend}{plot}<figcaption>{caption}</figcaption></figure>\n",
            legend = self.legend(&drawn),
            plot = self.plot(&drawn, &scale),
            caption = escape(&self.caption),
        )
    }

    fn shown(&self, value: f64) -> String {
        match self.axis {
            Axis::Percent => format!("{:.1} %", 100.0 * value),
            _ => significant(value),
        }
    }

    fn legend(&self, drawn: &[(&Line<'_>, &Series)]) -> String {
        let mut html = "<p class=\"legend\">".to_owned();
        for (line, series) in drawn {
            let _ = write!(
                html,
                "<span><i class=\"{}\"></i>{} <b>{}</b></span>",
                line.look.class(),
                escape(line.name),
                self.shown(series.last().1)
            );
        }
        html + "</p>"
    }

    fn plot(&self, drawn: &[(&Line<'_>, &Series)], scale: &Scale) -> String {
        let last_step = as_f64(self.last_step.max(1));
        let x_step = tick_step(last_step, 4).max(1.0);
        let mut grid = String::new();
        let mut labels = String::new();
        for (value, label) in &scale.ticks {
            let y = scale.y(*value);
            let _ = write!(grid, "<path class=\"grid\" d=\"M0 {y:.1}H{SIDE}\"/>");
            let top = y / SIDE * 100.0;
            let _ = write!(
                labels,
                "<span class=\"y\" style=\"top:{top:.2}%\">{label}</span>"
            );
        }
        for step in ticks(0.0, last_step, x_step) {
            let left = step / last_step * 100.0;
            let label = tick_label(step, x_step, false);
            let _ = write!(
                labels,
                "<span class=\"x\" style=\"left:{left:.2}%\">{label}</span>"
            );
        }
        let curves: String = drawn
            .iter()
            .rev()
            .map(|(line, series)| curve(line.look, series.bins(), scale, last_step))
            .collect();
        format!(
            "<div class=\"plot\"><svg viewBox=\"0 0 {SIDE} {SIDE}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">{grid}{curves}</svg>{labels}<span class=\"unit\">step</span></div>",
            escape(&self.spoken(drawn)),
        )
    }

    /// Describes the figure in words, for screen readers.
    fn spoken(&self, drawn: &[(&Line<'_>, &Series)]) -> String {
        let lines: Vec<String> = drawn
            .iter()
            .filter_map(|(line, series)| {
                let first = series.bins().first()?;
                let (step, last) = series.last();
                Some(format!(
                    "{} from {} to {} at step {step}",
                    line.name,
                    self.shown(first.mean),
                    self.shown(last)
                ))
            })
            .collect();
        format!("{}: {}", self.title, lines.join("; "))
    }

    fn scale(&self, drawn: &[(&Line<'_>, &Series)]) -> Scale {
        let [mut low, mut high] = [f64::INFINITY, f64::NEG_INFINITY];
        for (_, series) in drawn {
            let [lowest, highest] = series.extremes();
            low = low.min(lowest.clamp(-LARGEST, LARGEST));
            high = high.max(highest.clamp(-LARGEST, LARGEST));
        }
        if self.axis == Axis::MaybeLog && low > 0.0 && is_far_from_most(high, drawn) {
            return Scale::log(low, high);
        }
        if matches!(self.axis, Axis::FromZero | Axis::Percent) {
            low = low.min(0.0);
            high = high.max(0.0);
        }
        if self.axis == Axis::Percent {
            high = high.max(SMALL_SHARE);
        }
        Scale::linear(low, high, self.axis == Axis::Percent)
    }
}

fn is_far_from_most(high: f64, drawn: &[(&Line<'_>, &Series)]) -> bool {
    let mut means: Vec<f64> = drawn
        .iter()
        .flat_map(|(_, series)| series.bins().iter().map(|bin| bin.mean))
        .collect();
    means.sort_by(f64::total_cmp);
    means
        .get(means.len() / 2)
        .is_some_and(|middle| high > LOG_RATIO * middle)
}

impl Scale {
    /// Spans whole ticks, so that no curve touches an edge without a number.
    fn linear(low: f64, high: f64, is_percent: bool) -> Self {
        // A constant would have no height.
        let room = if high - low > 1e-9 * high.abs().max(low.abs()) {
            0.0
        } else {
            0.5 * high.abs().max(1e-3)
        };
        let (low, high) = (low - room, high + room);
        let step = tick_step(high - low, 4);
        let first = (low / step + 1e-9).floor();
        let last = (high / step - 1e-9).ceil();
        let ticks = ticks(first, last, 1.0)
            .map(|place| (place * step, tick_label(place * step, step, is_percent)))
            .collect();
        Self {
            low: first * step,
            high: last * step,
            is_log: false,
            ticks,
        }
    }

    fn log(low: f64, high: f64) -> Self {
        let first = low.max(1.0 / LARGEST).log10().floor();
        let last = high.log10().ceil().max(first + 1.0);
        let step = ((last - first) / 6.0).ceil();
        let label = |place: f64| {
            if (-3.0..=4.0).contains(&place) {
                10_f64.powf(place).to_string()
            } else {
                format!("1e{place}")
            }
        };
        Self {
            low: first,
            high: last,
            is_log: true,
            ticks: ticks(first, last, step)
                .map(|place| (10_f64.powf(place), label(place)))
                .collect(),
        }
    }

    /// Returns the height of a value, from the top, in 0..=SIDE.
    fn y(&self, value: f64) -> f64 {
        let value = value.clamp(-LARGEST, LARGEST);
        let value = if self.is_log { value.log10() } else { value };
        let share = (value - self.low) / (self.high - self.low);
        SIDE * (1.0 - share.clamp(0.0, 1.0))
    }
}

/// Draws the means as a line and the extremes as a band behind it.
fn curve(look: Look, bins: &[Bin], scale: &Scale, last_step: f64) -> String {
    let x = |bin: &Bin| SIDE * (bin.step / last_step).clamp(0.0, 1.0);
    let class = look.class();
    let mut line = String::new();
    for (place, bin) in bins.iter().enumerate() {
        let command = if place == 0 { 'M' } else { 'L' };
        let _ = write!(line, "{command}{:.1} {:.1}", x(bin), scale.y(bin.mean));
    }
    let mut html = String::new();
    if look != Look::Reference && bins.iter().any(|bin| bin.low < bin.high) {
        let upper = bins.iter().map(|bin| (x(bin), scale.y(bin.high)));
        let lower = bins.iter().rev().map(|bin| (x(bin), scale.y(bin.low)));
        let mut band = String::new();
        for (x, y) in upper.chain(lower) {
            let _ = write!(band, "{x:.1},{y:.1} ");
        }
        let _ = write!(
            html,
            "<polygon class=\"{class}\" points=\"{}\"/>",
            band.trim_end()
        );
    }
    let _ = write!(html, "<path class=\"{class}\" d=\"{line}\"/>");
    if look != Look::Reference && bins.len() <= MAX_DOTS {
        let dots: String = bins
            .iter()
            .map(|bin| format!("M{:.1} {:.1}h0", x(bin), scale.y(bin.mean)))
            .collect();
        let _ = write!(html, "<path class=\"{class} dots\" d=\"{dots}\"/>");
    }
    html
}

/// Returns 1, 2 or 5 times a power of ten that cuts a span into about `n` parts.
fn tick_step(span: f64, n: u32) -> f64 {
    let rough = span / f64::from(n);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = match rough / power {
        r if r < 1.5 => 1.0,
        r if r < 3.5 => 2.0,
        r if r < 7.0 => 5.0,
        _ => 10.0,
    };
    power * factor
}

/// Counts from `low` to `high`.
fn ticks(low: f64, high: f64, step: f64) -> impl Iterator<Item = f64> {
    (0..)
        .map(move |place| low + f64::from(place) * step)
        .take_while(move |&value| value <= high)
}

/// Writes a tick with as many decimals as its distance to the next needs.
fn tick_label(value: f64, step: f64, is_percent: bool) -> String {
    let factor = if is_percent { 100.0 } else { 1.0 };
    let (value, step) = (value * factor, step * factor);
    let unit = if is_percent { " %" } else { "" };
    if value.abs() < 1e-9 * step {
        return format!("0{unit}");
    }
    if step >= 0.999 && value.abs() >= 999.5 {
        return significant(value) + unit;
    }
    if step < 0.999e-4 {
        let text = format!("{value:.1e}").replace(".0e", "e");
        return text + unit;
    }
    let decimals = (0..5)
        .find(|&decimals| step * 10_f64.powi(decimals) > 0.999)
        .unwrap_or(5);
    let decimals = usize::try_from(decimals).unwrap_or(0);
    format!("{value:.decimals$}{unit}")
}

/// Returns a number of steps, which is far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "steps are far below 2^53")]
pub(super) fn as_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use m3ret_pretrain::report::{Entry, History};

    fn labels(low: f64, high: f64) -> Vec<String> {
        let scale = Scale::linear(low, high, false);
        assert!(scale.low <= low && scale.high >= high, "{low} {high}");
        scale.ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_span_the_values() {
        assert_eq!(labels(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.0, 55.0), ["0", "10", "20", "30", "40", "50", "60"]);
        assert_eq!(labels(0.0, 2e-4), ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]);
        assert_eq!(labels(-31.0, -2.0), ["-40", "-30", "-20", "-10", "0"]);
        assert_eq!(
            labels(0.996, 1.0),
            ["0.996", "0.997", "0.998", "0.999", "1.000"]
        );
        assert_eq!(
            labels(0.0, 41_000.0),
            ["0", "10,000", "20,000", "30,000", "40,000", "50,000"]
        );
    }

    #[test]
    fn a_constant_has_an_axis() {
        for value in [0.0, 1.0, -3.0, 1e-12, 1e12] {
            let scale = Scale::linear(value, value, false);
            assert!(scale.low < scale.high, "{value}");
            assert!(scale.y(value).is_finite());
            assert!((2..9).contains(&scale.ticks.len()), "{value}");
        }
    }

    fn chart(values: &[f64], axis: Axis) -> String {
        let mut history = History::default();
        for (step, value) in (0..).zip(values) {
            history.push(&Entry {
                step,
                gradient_norm: Some(*value),
                ..Entry::default()
            });
        }
        let line = Line {
            name: "a < b",
            series: history.series("gradient_norm"),
            look: Look::First,
        };
        Chart {
            title: "Gradient & norm",
            caption: "x < y".to_owned(),
            lines: vec![line],
            axis,
            last_step: 9,
        }
        .html()
    }

    #[test]
    fn a_figure_without_values_is_left_out() {
        assert_eq!(chart(&[], Axis::Values), "");
        assert_eq!(chart(&[f64::NAN], Axis::Values), "");
    }

    #[test]
    fn a_figure_says_its_newest_value_and_escapes_words() {
        let html = chart(&[0.5, 0.25], Axis::Values);
        assert!(html.contains("a &lt; b <b>0.2500</b>"), "{html}");
        assert!(html.contains("Gradient &amp; norm") && html.contains("x &lt; y"));
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn an_axis_is_logarithmic_only_where_spikes_would_flatten_the_curve() {
        let log = "logarithmic scale";
        assert!(chart(&[1.0, 1.1, 0.9, 500.0, 1.0], Axis::MaybeLog).contains(log));
        assert!(!chart(&[1.0, 1.1, 0.9, 5.0, 1.0], Axis::MaybeLog).contains(log));
        assert!(!chart(&[1.0, 0.0, 0.9, 500.0, 1.0], Axis::MaybeLog).contains(log));
        assert!(!chart(&[1.0, 1.1, 0.9, 500.0, 1.0], Axis::Values).contains(log));
    }

    #[test]
    fn a_small_share_looks_small() {
        let html = chart(&[1e-6, 4e-6], Axis::Percent);
        assert!(
            html.contains(">5 %<") && html.contains("<b>0.0 %</b>"),
            "{html}"
        );
    }

    #[test]
    fn extreme_values_draw_finite_coordinates() {
        for values in [
            &[f64::MAX, -f64::MAX][..],
            &[f64::MIN_POSITIVE],
            &[1e-300, 1e300],
        ] {
            for axis in [Axis::Values, Axis::MaybeLog, Axis::FromZero] {
                let html = chart(values, axis);
                assert!(
                    !html.contains("NaN") && !html.contains("inf"),
                    "{values:?} {html}"
                );
                assert!(html.len() < 100_000);
            }
        }
    }
}
