"""The models that come with Keras, trained or not."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Annotated, ClassVar

from etils import epy
from pydantic import BeforeValidator

from descent.model.base import finish, start
from descent.types import Count, Flag, Kind, Regularization, Spec, UserError, part

with epy.lazy_imports():
    import keras

# The modules of `keras.applications` and their models; written down, as looking it up would import TensorFlow.
MODULES = {
    "convnext": ("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"),
    "densenet": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "efficientnet": tuple(f"EfficientNetB{i}" for i in range(8)),
    "efficientnet_v2": tuple(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    "inception_resnet_v2": ("InceptionResNetV2",),
    "inception_v3": ("InceptionV3",),
    "mobilenet": ("MobileNet",),
    "mobilenet_v2": ("MobileNetV2",),
    "mobilenet_v3": ("MobileNetV3Small", "MobileNetV3Large"),
    "nasnet": ("NASNetMobile", "NASNetLarge"),
    "resnet": ("ResNet50", "ResNet101", "ResNet152"),
    "resnet_v2": ("ResNet50V2", "ResNet101V2", "ResNet152V2"),
    "vgg16": ("VGG16",),
    "vgg19": ("VGG19",),
    "xception": ("Xception",),
}
_MODULE = {name: module for module, names in MODULES.items() for name in names}
_PLAIN = {name.lower(): name for name in _MODULE}


def _application(value: object) -> object:
    """Keras' name of an application, however it is written: mobilenet_v2, MobileNetV2, mobilenetv2."""
    plain = str(value).lower().replace("_", "").replace("-", "")
    if plain in _PLAIN:
        return _PLAIN[plain]
    near = difflib.get_close_matches(plain, _PLAIN, n=1)
    meant = f"did you mean {_PLAIN[near[0]]}?" if near else f"choose one of {', '.join(_MODULE)}"
    raise ValueError(f"there is no such model in keras.applications; {meant}")


@part
class KerasApplication:
    """Any model of `keras.applications` under a new head, with the preprocessing its weights were trained with.

    Images smaller than `size` are enlarged, grey ones repeated to three channels. Dropout comes before the head;
    the other rates of `regularization` do not apply, as the inside of these models is Keras' own.

    Attributes:
        application: its name in Keras; case and underscores do not matter.
        weights: "imagenet" for Keras' own download, None for a fresh start, or a file of the weights without head.
        freeze: train the head alone; norms keep their statistics.
        size: rows and columns, whichever are fewer, are enlarged to this, in pixels; larger images stay.

    Raises:
        UserError: (from `build`) the weights cannot be had, or the images do not suit the model.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    convolves: ClassVar[bool] = True

    application: Annotated[str, BeforeValidator(_application)] = "MobileNetV2"
    weights: str | None = "imagenet"
    freeze: Flag = False
    size: Count = 96

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model:
        from descent.model.layers import Dropout

        inputs, _ = start(spec)
        x = self._prepared(inputs, spec)
        backbone = self._backbone(x.shape[1:])
        if self.freeze:
            _freeze(backbone)
        x = Dropout(regularization.rates("dropout", 1)[0], name="dropout")(backbone(x))
        return finish(inputs, x, spec, name="keras_application")

    def _prepared(self, x: keras.KerasTensor, spec: Spec) -> keras.KerasTensor:
        """Images in [0, 1] to what the application takes, in float32."""
        from descent.model.layers import Preprocessing

        rows, columns, channels = spec.shape
        if channels not in (1, 3):
            raise UserError(f"model: keras_application takes images of 1 or 3 channels, and these have {channels}")
        factor = self.size / min(rows, columns)
        if factor > 1:
            target = round(rows * factor), round(columns * factor)
            x = keras.layers.Resizing(*target, dtype="float32", name="enlarge")(x)
        if channels == 1:
            x = keras.layers.Concatenate(dtype="float32", name="colours")([x, x, x])
        return Preprocessing(_MODULE[self.application], dtype="float32", name="preprocess")(x)

    def _backbone(self, shape: tuple[int, ...]) -> keras.Model:
        make = getattr(keras.applications, self.application)
        weights = str(self._file()) if self.weights not in (None, "imagenet") else self.weights
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that ImageNet's images had another size
                return make(include_top=False, weights=weights, input_shape=shape, pooling="avg", name="backbone")
        except Exception as error:  # a failed download is a bare Exception
            raise UserError(self._wrong(error, shape)) from error

    def _file(self) -> Path:
        path = Path(str(self.weights)).expanduser()
        if not path.is_file():
            raise UserError(f"model.weights={self.weights}: no such file; give a file, imagenet (download) or null")
        return path

    def _wrong(self, error: Exception, shape: tuple[int, ...]) -> str:
        said = " ".join(str(error).split())[:300]
        if self.weights is None:
            return f"model: {self.application} cannot be made for images of {shape[0]}x{shape[1]}: {said}"
        return f"model.weights={self.weights}: {self.application} cannot be had with them (null starts afresh): {said}"


def _freeze(backbone: keras.Model) -> None:
    """Nothing in it trains, and it works in training as it does in inference."""
    backbone.trainable = False
    # A model hands `training` down to all its layers, even past `training=False` at a call of an inner model.
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
