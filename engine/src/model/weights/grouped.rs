//! Matrices that stay together in one lossless group: as a DFloat11 file has them, or coded together because the recipe says so.

use web_time::Instant;

use super::{DFloat11, ModelError, Role, TensorReport, Weights};
use crate::codec::dfloat11::{Group, bf16_bits};
use crate::codec::{Packed, RUN, nmse};

/// A matrix that is wanted: its role, rows and columns.
pub type Place = (Role, u32, u32);

impl Weights {
    /// The group of all of these matrices, with the number of each one's first weight; `None` if one of them is to be in another form,
    /// or cannot be in this one: they are then had one by one ([`Weights::matrix`]).
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub fn group(&mut self, layer: u32, wanted: &[Place]) -> Result<Option<(Group, Vec<u32>)>, ModelError> {
        let fits = |&(role, _, cols): &Place| {
            self.expanded_bytes(role, layer) > 0 && (cols as usize).is_multiple_of(RUN) && cols > 0
        };
        if wanted.is_empty() || !wanted.iter().all(fits) {
            return Ok(None);
        }
        if let Some(found) = self.stored_group(layer, wanted)? {
            return Ok(Some(found));
        }
        let mut weights: Vec<u16> = Vec::new();
        let mut firsts = Vec::new();
        let mut reports = Vec::new();
        let start = Instant::now();
        for &(role, rows, cols) in wanted {
            let (name, packed) = self.stored_matrix(role, layer, [rows, cols])?;
            let first = weights.len();
            let Ok(number) = u32::try_from(first) else { return Ok(None) };
            firsts.push(number);
            let stored_bits = bits_of(&packed).filter(|_| self.basis.is_none());
            let error = match stored_bits {
                Some(bits) => {
                    weights.extend(bits);
                    0.0
                }
                None => {
                    let mut values = packed.decode();
                    self.change_basis(role, layer, &mut values, cols as usize)?;
                    let bits = bf16_bits(&values);
                    let rounded: Vec<f32> = bits.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)).collect();
                    weights.extend(bits);
                    nmse(&values, &rounded)
                }
            };
            let name = if self.is_tied(role) { format!("{name} (as output)") } else { name };
            reports.push((name, [rows as usize, cols as usize], Some(error)));
        }
        let Ok(group) = Group::encode(&weights) else { return Ok(None) };
        self.encode_seconds += start.elapsed().as_secs_f64();
        self.report_group(&group, reports);
        Ok(Some((group, firsts)))
    }

    /// Bytes that a matrix takes when it is expanded to be used; 0 for one that is used as it is.
    pub fn expanded_bytes(&self, role: Role, layer: u32) -> u64 {
        match self.planned(role, layer) {
            Some((tensor, Some(codec))) if codec.name() == DFloat11::NAME => 2 * tensor.elements(),
            _ => 0,
        }
    }

    /// The group that the file has of these matrices.
    fn stored_group(&mut self, layer: u32, wanted: &[Place]) -> Result<Option<(Group, Vec<u32>)>, ModelError> {
        if self.basis.is_some() {
            return Ok(None);
        }
        let (mut number, mut firsts, mut reports) = (None, Vec::new(), Vec::new());
        for &(role, rows, cols) in wanted {
            let tensor = self.find(role, layer, "weight");
            let found = tensor.and_then(|tensor| self.stored.in_group(&tensor.name));
            let Some((group, member)) = found.filter(|(group, _)| number.is_none_or(|n| n == *group)) else {
                return Ok(None);
            };
            if [member.rows, member.cols] != [rows as usize, cols as usize] {
                return Err(ModelError::TensorShape {
                    model: self.model(),
                    tensor: member.name.clone(),
                    found: vec![member.rows as u64, member.cols as u64],
                    expected: vec![rows.into(), cols.into()],
                });
            }
            // A shorter type than rows and columns have could not be counted by the format's positions either.
            let Ok(first) = u32::try_from(member.first) else { return Ok(None) };
            number = Some(group);
            firsts.push(first);
            reports.push((member.name.clone(), [member.rows, member.cols], None));
        }
        let Some(number) = number else { return Ok(None) };
        let group = self.stored.group(number).map_err(|error| ModelError::Codec {
            model: self.model(),
            tensor: reports.first().map(|(name, ..)| name.clone()).unwrap_or_default(),
            error: Box::new(error),
        })?;
        self.report_group(&group, reports);
        Ok(Some((group, firsts)))
    }

    /// Every matrix has its share of the group's bytes.
    fn report_group(&mut self, group: &Group, members: Vec<(String, [usize; 2], Option<f64>)>) {
        let total: usize = members.iter().map(|(_, [rows, cols], _)| rows * cols).sum();
        let (mut counted, mut taken) = (0, 0);
        for (name, shape, nmse) in members {
            counted += shape[0] * shape[1];
            let until = (u128::from(group.bytes()) * counted as u128 / total.max(1) as u128) as u64;
            let codec = DFloat11::NAME.to_owned();
            self.reports.push(TensorReport { name, shape, codec, fallback_from: None, bytes: until - taken, nmse });
            taken = until;
        }
    }
}

/// The bits of a matrix that is bf16 and has no padding.
fn bits_of(packed: &Packed) -> Option<Vec<u16>> {
    (packed.codec.name() == "bf16" && packed.cols.is_multiple_of(RUN)).then(|| {
        packed.planes.iter().flat_map(|plane| &plane.data).flat_map(|w| [*w as u16, (w >> 16) as u16]).collect()
    })
}
