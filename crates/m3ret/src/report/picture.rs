//! Pictures of input and output of the network, inside the page.

use std::fmt::Write as _;

use m3ret_imaging::{self as imaging, Input};
use m3ret_pretrain::report::Picture;
use m3ret_pretrain::report::words::{count, escape};

use super::shell::data_url;

/// The most slices or frames that are drawn of one object.
const MAX_SLICES: usize = 6;
/// Smaller sides are enlarged without smoothing, so that patches stay apart.
const SMOOTH_SIDE: usize = 128;

/// Returns the figure of a picture: panels side by side for an image, a strip a row for what is deeper.
///
/// # Errors
/// If a row does not have three channels or no pixels.
pub(super) fn figure(picture: &Picture) -> anyhow::Result<String> {
    let depth = picture
        .rows
        .iter()
        .map(|(_, input)| input.shape()[1])
        .max()
        .unwrap_or(0);
    let rows: Vec<String> = picture
        .rows
        .iter()
        .map(|(name, input)| row(name, input))
        .collect::<anyhow::Result<_>>()?;
    let title = escape(&picture.title);
    let (class, n_columns) = if depth > 1 {
        ("strips", depth.min(MAX_SLICES))
    } else {
        ("panels", picture.rows.len())
    };
    let note = if depth > MAX_SLICES {
        format!(
            " <small>{MAX_SLICES} of {} slices or frames</small>",
            count(depth)
        )
    } else {
        String::new()
    };
    Ok(format!(
        "<figure class=\"picture\"><h3>{title}{note}</h3><div class=\"{class}\" style=\"--n:{n_columns}\">{}</div></figure>\n",
        rows.concat()
    ))
}

fn row(name: &str, input: &Input) -> anyhow::Result<String> {
    let [channels, depth, height, width] = input.shape();
    if channels != 3 || depth * height * width == 0 {
        anyhow::bail!(
            "a picture has the shape {:?}, wanted [3, D, H, W]",
            input.shape()
        );
    }
    let name = escape(name);
    let class = if height.max(width) < SMOOTH_SIDE {
        " class=\"blocks\""
    } else {
        ""
    };
    let mut html = format!("<div class=\"row\"><p>{name}</p>");
    for slice in shown_slices(depth) {
        let png = png_of(input, slice)?;
        let place = if depth > 1 {
            format!(", {} of {depth}", slice + 1)
        } else {
            String::new()
        };
        let _ = write!(
            html,
            "<img{class} alt=\"{name}{place}\" width=\"{width}\" height=\"{height}\" src=\"{}\">",
            data_url(&png)
        );
    }
    Ok(html + "</div>")
}

/// Returns the middles of equal parts of the depth.
fn shown_slices(depth: usize) -> impl Iterator<Item = usize> {
    let n = depth.min(MAX_SLICES);
    (0..n).map(move |part| (2 * part + 1) * depth / (2 * n))
}

/// Draws one slice, in grey where its channels are equal.
fn png_of(input: &Input, slice: usize) -> anyhow::Result<Vec<u8>> {
    let [_, depth, height, width] = input.shape();
    let plane = height * width;
    let [red, green, blue] = [0, 1, 2].map(|channel| {
        let first = (channel * depth + slice) * plane;
        &input.values()[first..first + plane]
    });
    let rgb = red.iter().zip(green).zip(blue);
    let rgb = rgb.flat_map(|((&r, &g), &b)| [byte(r), byte(g), byte(b)]);
    let picture = imaging::Picture {
        width,
        height,
        rgb: rgb.collect(),
    };
    Ok(picture.png()?)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float outside of 0..=255 saturates, and NaN becomes 0"
)]
fn byte(value: f32) -> u8 {
    (value * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(depth: usize, colour: bool) -> Input {
        let n = depth * 6;
        let values = (0..3 * n)
            .map(|place| match place / n {
                2 if colour => 1.0,
                _ => f32::from(u8::try_from(place % n).unwrap()) / 255.0,
            })
            .collect();
        Input::new(values, [3, depth, 2, 3]).unwrap()
    }

    #[test]
    fn a_slice_becomes_the_pixels_that_it_holds() {
        let grey = image::load_from_memory(&png_of(&input(4, false), 2).unwrap()).unwrap();
        assert_eq!(grey.color(), image::ColorType::L8);
        assert_eq!(grey.as_bytes(), [12, 13, 14, 15, 16, 17]);
        let rgb = image::load_from_memory(&png_of(&input(1, true), 0).unwrap()).unwrap();
        assert_eq!(rgb.as_bytes()[..6], [0, 0, 255, 1, 1, 255]);
    }

    #[test]
    fn values_outside_of_the_range_saturate() {
        assert_eq!([-1.0, 0.5, 2.0, f32::NAN].map(byte), [0, 128, 255, 0]);
    }

    #[test]
    fn slices_are_spread_over_the_depth() {
        for (depth, wanted) in [
            (1, &[0][..]),
            (4, &[0, 1, 2, 3]),
            (6, &[0, 1, 2, 3, 4, 5]),
            (64, &[5, 16, 26, 37, 48, 58]),
        ] {
            assert_eq!(shown_slices(depth).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn a_picture_escapes_its_names_and_refuses_other_shapes() {
        let picture = Picture {
            title: "<CT>".to_owned(),
            rows: vec![("a\"b".to_owned(), input(8, false))],
        };
        let html = figure(&picture).unwrap();
        assert!(
            html.contains("&lt;CT&gt;") && html.contains("alt=\"a&quot;b, 1 of 8\""),
            "{html}"
        );
        assert_eq!(html.matches("<img").count(), 6);
        let grey = Picture {
            title: String::new(),
            rows: vec![(
                String::new(),
                Input::new(vec![0.0; 4], [1, 1, 2, 2]).unwrap(),
            )],
        };
        assert!(
            figure(&grey)
                .unwrap_err()
                .to_string()
                .contains("wanted [3, D, H, W]")
        );
    }
}
