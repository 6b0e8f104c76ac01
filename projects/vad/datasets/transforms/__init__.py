from .filters import CustomObjectNameFilter, CustomObjectRangeFilter
from .load_images import VADLoadMultiViewImageFromFiles
from .pack import PackVADInputs
from .photometric import PhotoMetricDistortionMultiViewImage
from .scale import RandomScaleImageMultiViewImage

__all__ = [
    'CustomObjectNameFilter',
    'CustomObjectRangeFilter',
    'PackVADInputs',
    'PhotoMetricDistortionMultiViewImage',
    'RandomScaleImageMultiViewImage',
    'VADLoadMultiViewImageFromFiles',
]
