from Cython.Build import cythonize
from setuptools import Extension, setup

import fastrnn

setup(ext_modules=cythonize([Extension("policy", ["policy.pyx"], include_dirs=[fastrnn.get_include()])]))
