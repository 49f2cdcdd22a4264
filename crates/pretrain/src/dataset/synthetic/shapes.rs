//! Random shapes -> a map of labels.

use rand::Rng as _;

use super::{Dice, Waves, coordinate};

/// Outside of every shape: air, or what lies beyond the field of view.
pub(super) const OUTSIDE: u8 = 0;

/// The largest shift of a point by the deformation, along each axis; the scene's axes run from -1 to 1.
const BEND: [f32; 2] = [0.05, 0.2];

/// How far a solid reaches, as a multiple of its largest radius: rounded boxes and lobes stand out.
const REACH: f32 = 1.45;

/// Which label each voxel has, W fastest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LabelMap {
    /// `[D, H, W]`
    pub(super) shape: [usize; 3],
    pub(super) labels: Vec<u8>,
    /// Labels are below it.
    pub(super) n_labels: u8,
}

/// A solid, as the place where a function of the point is below 1.
#[derive(Debug, Clone)]
struct Solid {
    kind: SolidKind,
    /// `(z, y, x)`
    centre: [f32; 3],
    /// Rows turn a point into the solid's own axes.
    turn: [[f32; 3]; 3],
    radii: [f32; 3],
    /// Nested shells from the outside in: where the function is below the limit, the label.
    layers: Vec<(f32, u8)>,
    /// Whether it is cut off where nothing was painted before.
    is_inside: bool,
}

#[derive(Debug, Clone, Copy)]
enum SolidKind {
    Ellipsoid,
    /// A box with rounded edges: the 4-norm.
    Box,
    /// An ellipsoid with lobes of these heights.
    Blob([f32; 2]),
    /// Bent along its first axis by so many radii of its second.
    Tube(f32),
}

/// A scene under way: solids in the order they are painted, and the next free label.
struct Scene<'a> {
    dice: &'a mut Dice,
    solids: Vec<Solid>,
    next_label: u8,
}

impl LabelMap {
    /// Draws a scene and paints it on a grid; a grid of depth 1 is a random plane of it.
    pub(super) fn draw(shape: [usize; 3], dice: &mut Dice) -> Self {
        let mut scene = Scene {
            dice,
            solids: Vec::new(),
            next_label: 1,
        };
        let has_background = scene.fill();
        let Scene {
            solids, next_label, ..
        } = scene;
        let canvas = SceneGrid::draw(shape, dice);
        let mut labels = vec![u8::from(has_background); canvas.points.len()];
        for solid in &solids {
            canvas.paint(solid, &mut labels);
        }
        if has_background && dice.chance(0.3) {
            cut_sector(shape, &mut labels, dice);
        }
        Self {
            shape,
            labels,
            n_labels: next_label,
        }
    }
}

impl Scene<'_> {
    /// Draws all solids; returns whether label 1 fills the rest.
    fn fill(&mut self) -> bool {
        if self.dice.chance(0.65) {
            self.body();
            return false;
        }
        // Loose shapes on a background.
        self.next_label = 2;
        for _ in 0..self.dice.count(10, 28) {
            let radius = self.dice.within(0.1, 0.55);
            let solid = self.loose(radius, 0.9, false);
            self.solids.push(solid);
        }
        true
    }

    /// A body in layers; within it cavities, a spine, a ring of bones, organs and vessels.
    fn body(&mut self) {
        let radii = [
            self.dice.within(1.2, 3.0),
            self.dice.within(0.4, 0.85),
            self.dice.within(0.5, 0.95),
        ];
        let kind = if self.dice.chance(0.3) {
            SolidKind::Box
        } else {
            SolidKind::Ellipsoid
        };
        let n_layers = self.dice.count(1, 4);
        let layers = self.layers(n_layers, [0.72, 0.95]);
        self.solids.push(Solid {
            kind,
            centre: [(); 3].map(|()| self.dice.within(-0.08, 0.08)),
            turn: upright(self.dice.within(-0.3, 0.3)),
            radii,
            layers,
            is_inside: false,
        });
        if self.dice.chance(0.5) {
            self.cavities(radii);
        }
        for _ in 0..self.dice.count(2, 9) {
            let radius = self.dice.within(0.06, 0.3);
            let spread = radii[1].min(radii[2]) * 0.8;
            let solid = self.loose(radius, spread, true);
            self.solids.push(solid);
        }
        if self.dice.chance(0.6) {
            self.spine(radii);
        }
        if self.dice.chance(0.35) {
            self.ring_of_bones(radii);
        }
        for _ in 0..self.dice.count(0, 5) {
            self.vessel(radii);
        }
    }

    /// Two like cavities beside each other, as lungs or ventricles are.
    fn cavities(&mut self, body: [f32; 3]) {
        let label = self.label();
        let radii = [
            self.dice.within(0.4, 1.2),
            body[1] * self.dice.within(0.25, 0.65),
            body[2] * self.dice.within(0.15, 0.36),
        ];
        let (height, depth) = (self.dice.within(-0.15, 0.15), self.dice.within(-0.2, 0.2));
        let aside = radii[2] + body[2] * self.dice.within(0.03, 0.2);
        let lobes = [self.dice.within(-0.25, 0.25), self.dice.within(-0.25, 0.25)];
        for side in [-1.0, 1.0] {
            self.solids.push(Solid {
                kind: SolidKind::Blob(lobes),
                centre: [depth, height, side * aside],
                turn: upright(side * 0.2),
                radii,
                layers: vec![(1.0, label)],
                is_inside: true,
            });
        }
    }

    /// A long bone along the depth, with a shell.
    fn spine(&mut self, body: [f32; 3]) {
        let layers = self.layers(2, [0.4, 0.8]);
        let width = self.dice.within(0.07, 0.18);
        let aside = self.dice.within(-0.1, 0.1);
        self.solids.push(Solid {
            kind: SolidKind::Ellipsoid,
            centre: [0.0, body[1] * self.dice.within(0.3, 0.65), aside],
            turn: upright(self.dice.within(-0.2, 0.2)),
            radii: [4.0, width, width * self.dice.within(0.8, 1.6)],
            layers,
            is_inside: true,
        });
    }

    /// Small like bones in a ring, as cut ribs are.
    fn ring_of_bones(&mut self, body: [f32; 3]) {
        let layers = self.layers(2, [0.3, 0.7]);
        let n = self.dice.count(6, 16);
        let (radius, start) = (self.dice.within(0.025, 0.06), self.dice.within(0.0, 1.0));
        let share = self.dice.within(0.6, 0.85);
        for i in 0..n {
            #[allow(clippy::cast_precision_loss, reason = "at most 16")]
            let angle = std::f32::consts::TAU * (i as f32 + start) / n as f32;
            let (sin, cos) = angle.sin_cos();
            let tall = self.dice.within(0.1, 0.6);
            self.solids.push(Solid {
                kind: SolidKind::Ellipsoid,
                centre: [
                    self.dice.within(-0.8, 0.8),
                    share * body[1] * sin,
                    share * body[2] * cos,
                ],
                turn: upright(angle),
                radii: [tall, radius, 2.0 * radius],
                layers: layers.clone(),
                is_inside: true,
            });
        }
    }

    fn vessel(&mut self, body: [f32; 3]) {
        let label = self.label();
        let width = self.dice.within(0.015, 0.06);
        let turn = self.any_turn();
        self.solids.push(Solid {
            kind: SolidKind::Tube(self.dice.within(-4.0, 4.0)),
            centre: [0.5, 0.5 * body[1], 0.5 * body[2]].map(|most| self.dice.within(-most, most)),
            turn,
            radii: [self.dice.within(0.25, 0.9), width, width],
            layers: vec![(1.0, label)],
            is_inside: true,
        });
    }

    /// A solid of any kind and direction, within `spread` of the middle.
    fn loose(&mut self, radius: f32, spread: f32, is_inside: bool) -> Solid {
        let radii = [(); 3].map(|()| radius * self.dice.within(0.4, 1.0));
        let kind = match self.dice.count(0, 9) {
            0..3 => SolidKind::Ellipsoid,
            3..5 => SolidKind::Box,
            5..8 => SolidKind::Blob([self.dice.within(-0.3, 0.3), self.dice.within(-0.3, 0.3)]),
            _ => SolidKind::Tube(self.dice.within(-1.0, 1.0)),
        };
        let n_layers = self.dice.count(1, 5).saturating_sub(2).max(1);
        Solid {
            kind,
            centre: [(); 3].map(|()| self.dice.within(-spread, spread)),
            turn: self.any_turn(),
            radii,
            layers: self.layers(n_layers, [0.35, 0.9]),
            is_inside,
        }
    }

    fn label(&mut self) -> u8 {
        let label = self.next_label;
        self.next_label = self.next_label.saturating_add(1);
        label
    }

    /// Nested shells with labels of their own; each is a share of the one around it.
    fn layers(&mut self, n: u32, [low, high]: [f32; 2]) -> Vec<(f32, u8)> {
        let mut limit = 1.0;
        let mut layers = Vec::new();
        for _ in 0..n {
            layers.push((limit, self.label()));
            // The function grows with the square of the radius.
            limit *= self.dice.within(low, high).powi(2);
        }
        layers
    }

    /// A rotation, uniform among all: a random unit quaternion.
    fn any_turn(&mut self) -> [[f32; 3]; 3] {
        let [u, v, w] = [(); 3].map(|()| self.dice.within(0.0, 1.0));
        let tau = std::f32::consts::TAU;
        let (sin_v, cos_v) = (tau * v).sin_cos();
        let (sin_w, cos_w) = (tau * w).sin_cos();
        let (a, b) = ((1.0 - u).sqrt(), u.sqrt());
        let [i, j, k, r] = [a * sin_v, a * cos_v, b * sin_w, b * cos_w];
        [
            [
                1.0 - 2.0 * (j * j + k * k),
                2.0 * (i * j - k * r),
                2.0 * (i * k + j * r),
            ],
            [
                2.0 * (i * j + k * r),
                1.0 - 2.0 * (i * i + k * k),
                2.0 * (j * k - i * r),
            ],
            [
                2.0 * (i * k - j * r),
                2.0 * (j * k + i * r),
                1.0 - 2.0 * (i * i + j * j),
            ],
        ]
    }
}

/// A rotation about the depth.
fn upright(angle: f32) -> [[f32; 3]; 3] {
    let (sin, cos) = angle.sin_cos();
    [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]]
}

impl Solid {
    /// Returns the half sides of a box around it, in the scene's axes.
    fn reach(&self) -> [f32; 3] {
        let mut own = self.radii.map(|radius| REACH * radius);
        if let SolidKind::Tube(bend) = self.kind {
            own[1] += self.radii[1] * bend.abs();
        }
        // The axes of the solid are the rows of `turn`.
        [0, 1, 2].map(|axis| {
            let parts = self.turn.iter().zip(own);
            parts.map(|(row, reach)| row[axis].abs() * reach).sum()
        })
    }
}

/// The points of a grid in the scene, deformed.
struct SceneGrid {
    shape: [usize; 3],
    /// Which axis of the scene each axis of the grid runs along.
    axes: [usize; 3],
    /// Where on its axis a grid of one plane lies.
    plane: f32,
    /// `(z, y, x)` of each voxel.
    points: Vec<[f32; 3]>,
    /// The largest shift.
    bend: f32,
}

impl SceneGrid {
    fn draw(shape: [usize; 3], dice: &mut Dice) -> Self {
        let [depth, height, width] = shape;
        let is_picture = depth == 1;
        // Of pictures half are axial, the others frontal and lateral.
        let axes = match dice.0.next_u32() % 4 {
            0 if is_picture => [1, 0, 2],
            1 if is_picture => [2, 0, 1],
            _ => [0, 1, 2],
        };
        let plane = if is_picture {
            dice.within(-0.5, 0.5)
        } else {
            0.0
        };
        let bend = dice.within(BEND[0], BEND[1]);
        let shifts = [(); 3].map(|()| Waves::draw(shape, bend, 3.5, dice));
        let mut canvas = Self {
            shape,
            axes,
            plane,
            points: Vec::with_capacity(depth * height * width),
            bend,
        };
        let mut rows = [(); 3].map(|()| vec![0.0; width]);
        for z in 0..depth {
            for y in 0..height {
                for (row, shift) in rows.iter_mut().zip(&shifts) {
                    row.fill(0.0);
                    shift.add_row([z, y], row);
                }
                let [row_0, row_1, row_2] = &rows;
                let shifts = row_0.iter().zip(row_1).zip(row_2).enumerate();
                for (x, ((&shift_0, &shift_1), &shift_2)) in shifts {
                    let mut point = [shift_0, shift_1, shift_2];
                    for (axis, place) in [z, y, x].into_iter().enumerate() {
                        point[axes[axis]] += canvas.at(axis, place);
                    }
                    canvas.points.push(point);
                }
            }
        }
        canvas
    }

    /// Returns where a place on an axis of the grid lies in the scene.
    fn at(&self, axis: usize, place: usize) -> f32 {
        match self.shape[axis] {
            1 => self.plane,
            n => coordinate(place, n),
        }
    }

    /// Returns which places on an axis of the grid a solid may reach.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to the grid"
    )]
    fn places(&self, axis: usize, solid: &Solid) -> std::ops::Range<usize> {
        let along = self.axes[axis];
        let reach = solid.reach()[along] + self.bend;
        let (low, high) = (solid.centre[along] - reach, solid.centre[along] + reach);
        let n = self.shape[axis];
        if n == 1 {
            let is_met = low <= self.plane && self.plane <= high;
            return 0..usize::from(is_met);
        }
        let place = |x: f32| ((x + 1.0) / 2.0 * n as f32).clamp(0.0, n as f32);
        place(low).floor() as usize..place(high).ceil() as usize
    }

    /// Gives the voxels of a solid its labels. The function of a point, in the solid's own axes and divided
    /// by its radii, is below 1 within; one loop is compiled for each kind.
    fn paint(&self, solid: &Solid, labels: &mut [u8]) {
        match solid.kind {
            SolidKind::Ellipsoid => self.fill(solid, labels, |[u, v, w]| u * u + v * v + w * w),
            SolidKind::Box => self.fill(solid, labels, |own| {
                let [u, v, w] = own.map(|x| x * x);
                (u * u + v * v + w * w).sqrt()
            }),
            SolidKind::Blob([three, four]) => self.fill(solid, labels, |[u, v, w]| {
                let square = u * u + v * v + w * w;
                let lobes = three * u * (u * u - 3.0 * v * v) + four * 4.0 * u * v * w;
                // Further out the cubic terms would win.
                if square > 2.0 { square } else { square + lobes }
            }),
            SolidKind::Tube(bend) => self.fill(solid, labels, |[u, v, w]| {
                let across = v - bend * u * u;
                (across * across + w * w).max(u * u)
            }),
        }
    }

    fn fill(&self, solid: &Solid, labels: &mut [u8], function: impl Fn([f32; 3]) -> f32) {
        let [_, height, width] = self.shape;
        // Rows of `turn`, divided by the radii, take a point straight to the function.
        let mut turn = solid.turn;
        for (row, radius) in turn.iter_mut().zip(solid.radii) {
            row.iter_mut().for_each(|factor| *factor /= radius);
        }
        let [of_depth, of_height, across] = [0, 1, 2].map(|axis| self.places(axis, solid));
        for z in of_depth {
            for y in of_height.clone() {
                let start = (z * height + y) * width;
                let row = start + across.start..start + across.end;
                let points = &self.points[row.clone()];
                for (point, label) in points.iter().zip(&mut labels[row]) {
                    let value = function(turned(&turn, point, &solid.centre));
                    if value < 1.0 && !(solid.is_inside && *label == OUTSIDE) {
                        let inner = solid.layers.iter().rev();
                        let inner = inner.into_iter().find(|(limit, _)| value < *limit);
                        *label = inner.map_or(*label, |(_, inner)| *inner);
                    }
                }
            }
        }
    }
}

fn turned(turn: &[[f32; 3]; 3], point: &[f32; 3], centre: &[f32; 3]) -> [f32; 3] {
    let [dz, dy, dx] = [
        point[0] - centre[0],
        point[1] - centre[1],
        point[2] - centre[2],
    ];
    turn.map(|[a, b, c]| a * dz + b * dy + c * dx)
}

/// Takes away what lies outside of a sector, as an ultrasound probe sees it.
fn cut_sector([depth, height, width]: [usize; 3], labels: &mut [u8], dice: &mut Dice) {
    let apex = dice.within(1.05, 1.6);
    let slope = dice.within(0.4, 0.9);
    let radius = apex + dice.within(0.7, 0.98);
    let rows = labels.chunks_exact_mut(width).take(depth * height);
    for (idx, row) in rows.enumerate() {
        let y = coordinate(idx % height, height) + apex;
        for (x, label) in row.iter_mut().enumerate() {
            let x = coordinate(x, width);
            if x.abs() > slope * y || x * x + y * y > radius * radius {
                *label = OUTSIDE;
            }
        }
    }
}
