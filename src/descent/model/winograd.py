"""Convolutions of 3x3 with a fourth of the multiplications, from matrix products alone.

Winograd's minimal filtering F(4x4, 3x3) as Lavin & Gray have it ("Fast algorithms for convolutional neural networks",
2016, sections 4.1 and 4.3): of each 6x6 tile d of an image and each kernel g, with [] the product entry by entry,

    y = A^T [(G g G^T) [] (B^T d B)] A                       4x4 outputs, 36 products instead of 144

Summed over channels, each of the 36 products is one of matrices. Tiles overlap by two pixels; those of a whole axis
are taken at once, by a matrix that holds B^T once a tile, and put together by one that holds A^T. Sums are rounded
elsewhere than in a plain convolution: results differ by some 1e-5 of the largest.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

TILE, TAPS = 4, 6  # outputs of a tile along an axis, and the products they take
BT = np.array(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
KERNEL = np.kron(G, G).astype(np.float32)  # [36, 9]


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of an image, cut into tiles; beyond its ends there are zeros.

    Attributes:
        taken: what takes the tiles out of it, [6 tiles, size]: first all of the first tap.
        joined: what makes outputs of products, [size, 6 tiles].
    """

    taken: np.ndarray
    joined: np.ndarray

    @property
    def tiles(self) -> int:
        return len(self.taken) // TAPS


@functools.cache
def axis(size: int) -> Axis:
    tiles = math.ceil(size / TILE)
    taken, joined = np.zeros([TAPS, tiles, TILE * tiles + 2]), np.zeros([TILE * tiles, TAPS, tiles])
    for tile in range(tiles):
        begin = TILE * tile
        taken[:, tile, begin : begin + TAPS] = BT
        joined[begin : begin + TILE, :, tile] = AT
    flat = taken[:, :, 1 : size + 1].reshape(-1, size), joined[:size].reshape(size, -1)
    return Axis(*(matrix.astype(np.float32) for matrix in flat))


def saves(rows: int, columns: int) -> bool:
    """Whether it takes less than half the multiplications: tiles that stick out of a small image take theirs, too."""
    return 2 * TAPS**2 * axis(rows).tiles * axis(columns).tiles < 9 * rows * columns


def convolved(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The convolution of images [b h w c], padded with zeros, with a kernel [3 3 c d] at stride 1: float32 [b h w d].

    Rows and columns have to be known when it is traced. The gradients take a fourth of the multiplications, too.
    """
    down, across = axis(x.shape[1]), axis(x.shape[2])

    def taps(tensor: tf.Tensor) -> tf.Tensor:
        """[6 tiles, 6 tiles, b, n] with a dimension for each."""
        return tf.reshape(tensor, [TAPS, down.tiles, TAPS, across.tiles, -1, tensor.shape[-1]])

    def joined(tensor: tf.Tensor) -> tf.Tensor:
        """Back to [6 tiles, 6 tiles, b, n]."""
        return tf.reshape(tensor, [TAPS * down.tiles, TAPS * across.tiles, -1, tensor.shape[-1]])

    def by_tap(tensor: tf.Tensor) -> tf.Tensor:
        """[6 tiles, 6 tiles, b, n] as [36, tiles b, n]."""
        return tf.reshape(tf.transpose(taps(tensor), [0, 2, 1, 3, 4, 5]), [TAPS**2, -1, tensor.shape[-1]])

    @tf.custom_gradient
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> object:
        def tiles() -> tf.Tensor:
            return _transformed(down.taken, across.taken, tf.transpose(x, [1, 2, 0, 3]))

        weights = tf.reshape(KERNEL @ tf.reshape(kernel, [9, -1]), [TAPS, 1, TAPS, 1, *kernel.shape[2:]])
        outputs = _transformed(down.joined, across.joined, joined(taps(tiles()) @ weights))

        def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.control_dependencies([dy]):  # taken anew, in a tenth of the time; to keep them would take memory
                again = by_tap(tiles())
            products = _transformed(down.joined.T, across.joined.T, tf.transpose(dy, [1, 2, 0, 3]))
            dweights = tf.matmul(again, by_tap(products), transpose_a=True)
            dtiles = joined(tf.matmul(taps(products), weights, transpose_b=True))
            dx = _transformed(down.taken.T, across.taken.T, dtiles)
            dkernel = KERNEL.T @ tf.reshape(dweights, [TAPS**2, -1])
            return tf.transpose(dx, [2, 0, 1, 3]), tf.reshape(dkernel, kernel.shape)

        return tf.transpose(outputs, [2, 0, 1, 3]), backward

    return tf.ensure_shape(convolve(x, kernel), [*x.shape[:3], kernel.shape[3]])


def _transformed(down: np.ndarray, across: np.ndarray, x: tf.Tensor) -> tf.Tensor:
    """[h w b n] with a matrix [p h] along its rows and one [q w] along its columns: [p q b n]."""
    (p, h), (q, w), n = down.shape, across.shape, x.shape[-1]
    x = tf.reshape(down @ tf.reshape(x, [h, -1]), [p, w, -1])
    return tf.reshape(across @ x, [p, q, -1, n])
