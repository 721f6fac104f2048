// An ONNX model of one MatMulNBits (com.microsoft), written as the protobuf messages of onnx.proto.

const text = (string) => new TextEncoder().encode(string);

function varint(number) {
  const bytes = [];
  for (let rest = BigInt(number); ; rest >>= 7n) {
    const more = rest > 127n;
    bytes.push(Number(rest & 127n) | (more ? 128 : 0));
    if (!more) return new Uint8Array(bytes);
  }
}

function join(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** A field: integers as varints, strings and messages with their length. */
const field = (number, value) =>
  typeof value === "number"
    ? join([varint(number << 3), varint(value)])
    : join([varint((number << 3) | 2), varint((typeof value === "string" ? text(value) : value).length), typeof value === "string" ? text(value) : value]);

const message = (...fields) => join(fields.map(([number, value]) => field(number, value)));

const FLOAT = 1;
const UINT8 = 2;

/** TensorProto: dims, data_type, name, raw_data. */
const tensor = (name, type, dims, data) =>
  message(...dims.map((n) => [1, n]), [2, type], [8, name], [9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)]);

/** ValueInfoProto of a tensor of floats. */
function floats(name, dims) {
  const shape = message(...dims.map((n) => [1, message([1, n])]));
  return message([1, name], [2, message([1, message([1, FLOAT], [2, shape])])]);
}

/** AttributeProto of an integer. */
const integer = (name, value) => message([1, name], [3, value], [20, 2]);

/** Y[1, rows] = A[1, cols]·Wᵀ, W in 4 bits with a scale for each 32 columns: `codes` [rows, cols/32, 16] bytes, `scales` [rows·cols/32]. */
export function matMulNBits(rows, cols, codes, scales) {
  const blocks = cols / 32;
  const attributes = { K: cols, N: rows, bits: 4, block_size: 32 };
  const node = message(
    ...["A", "B", "S"].map((name) => [1, name]),
    [2, "Y"],
    [4, "MatMulNBits"],
    ...Object.entries(attributes).map(([name, value]) => [5, integer(name, value)]),
    [7, "com.microsoft"],
  );
  const graph = message(
    [1, node],
    [2, "matvec"],
    [5, tensor("B", UINT8, [rows, blocks, 16], codes)],
    [5, tensor("S", FLOAT, [rows * blocks], scales)],
    [11, floats("A", [1, cols])],
    [12, floats("Y", [1, rows])],
  );
  // IR version 10, opset 21 of ONNX and 1 of Microsoft's operators.
  return message([1, 10], [7, graph], [8, message([1, ""], [2, 21])], [8, message([1, "com.microsoft"], [2, 1])]);
}
