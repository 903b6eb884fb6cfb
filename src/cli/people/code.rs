//! A text as a QR code in the terminal: half blocks, two rows of modules in a line.

use std::fmt::Write as _;

use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

/// Modules of the white frame on each side (ISO/IEC 18004, section 9.1).
const FRAME: usize = 4;

/// The text as lines of half blocks. `coloured`: white on black by the terminal's own means, which does for every
/// terminal; else for one that shows light text on dark, or for a file. With the lowest level of error correction: a
/// screen has no scratches, and fewer modules are read sooner.
pub(super) fn draw(text: &str, coloured: bool) -> Result<Zeroizing<String>, String> {
    let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L)
        .map_err(|error| format!("{} bytes do not fit a QR code: {error}", text.len()))?;
    let (width, modules) = (code.width(), code.into_colors());
    let is_light = |x: usize, y: usize| {
        let module = (x.checked_sub(FRAME), y.checked_sub(FRAME));
        let (Some(x), Some(y)) = module else { return true };
        x >= width || y >= width || modules[y * width + x] == Color::Light
    };
    let side = width + 2 * FRAME;
    let mut drawn = Zeroizing::new(String::with_capacity(side * (side + 1) / 2 * 4));
    for y in (0..side).step_by(2) {
        drawn.push_str(if coloured { "\x1b[97;40m" } else { "" });
        drawn.extend((0..side).map(|x| match (is_light(x, y), y + 1 < side && is_light(x, y + 1)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        }));
        writeln!(drawn, "{}", if coloured { "\x1b[0m" } else { "" }).expect("a String takes any text");
    }
    Ok(drawn)
}

/// Columns of such a drawing.
pub(super) fn columns(drawn: &str) -> usize {
    drawn.lines().next().map_or(0, |line| line.chars().filter(|c| " █▀▄".contains(*c)).count())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What another program reads of a drawing.
    fn read(drawn: &str) -> String {
        const SCALE: usize = 4;
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        let light = |x: usize, y: usize| match lines[y / 2][x] {
            '█' => true,
            '▀' => y.is_multiple_of(2),
            '▄' => !y.is_multiple_of(2),
            _ => false,
        };
        let (width, height) = (lines[0].len() * SCALE, lines.len() * 2 * SCALE);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            if light(x / SCALE, y / SCALE) { 255 } else { 0 }
        });
        let found = image.detect_grids();
        assert_eq!(found.len(), 1, "one code is seen");
        found[0].decode().expect("it is read").1
    }

    #[test]
    fn a_configuration_is_read_back_and_fits_a_terminal_of_80_columns() {
        let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        let text = format!(
            "[Interface]\nPrivateKey = {key}\nAddress = 10.77.0.2/32, fd77::2/128\nDNS = 10.77.0.1\n\n[Peer]\n\
             PublicKey = {key}\nPresharedKey = {key}\nEndpoint = vpn.example.org:51820\nAllowedIPs = 0.0.0.0/0, ::/0\n\
             PersistentKeepalive = 25\n"
        );
        let drawn = draw(&text, false).unwrap();
        assert_eq!(read(&drawn), text);
        assert!(columns(&drawn) <= 80, "{}", columns(&drawn));
        let coloured = draw(&text, true).unwrap();
        assert_eq!(coloured.replace("\x1b[97;40m", "").replace("\x1b[0m", ""), *drawn);
        assert_eq!(columns(&coloured), columns(&drawn));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let error = draw(&"x".repeat(3000), false).unwrap_err();
        assert!(error.starts_with("3000 bytes do not fit"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_text_is_read_back(text in "[ -~\n]{1,400}") {
            prop_assert_eq!(read(&draw(&text, false).unwrap()), text);
        }
    }
}
