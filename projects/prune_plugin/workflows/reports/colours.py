"""The colours of all pictures: of Okabe and Ito, which stay apart for colour-blind readers."""

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000',
)  # fmt: skip
#: For lines that mean nothing else.
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
#: The same stage has the same colour everywhere.
STAGE = {
    'dense': '#4a5568', 'pruned': BLUE, 'slim': BLUE, 'masked': VERMILION, 'recovered': GREEN,
    'onnx': ORANGE, 'openvino': SKY, 'gguf': PURPLE,
}  # fmt: skip
TEXT, SOFT, TRACK, GRID = '#1a202c', '#4a5568', '#e4e7eb', '#edf2f7'
