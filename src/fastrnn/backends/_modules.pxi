# Part of _core.pyx: a look at a library's modules. 0.9 to 1.5 us warm, where Python took 1.2 to 1.7 and asked for fewer options; an
# inference of one row takes 0.94 of the time it took with that (LSTM, I=H=64, 2-vCPU Zen 4).


cdef class Usual:
    """Modules of one class, and of its subclasses, whose methods are the library's own.

    Parameters
    ----------
    kind : type
    methods : dict
        name -> function, as the library wrote it.
    """

    cdef type kind
    cdef dict methods

    def __init__(self, type kind not None, dict methods not None):
        self.kind, self.methods = kind, methods

    def weights(self, module):
        """Its list of weights; None if its methods are not the library's, if its options are of other types than the library
        takes or ask for a projection, or if the list is not what its parameters are now: the library tells what is wrong, or
        computes it.
        """
        own = type(module)
        if not isinstance(module, self.kind) or type(module.__dict__) is not dict:
            return None
        cdef dict state = module.__dict__
        for name, function in self.methods.items():
            if getattr(own, name, None) is not function or name in state:
                return None
        try:
            if module.proj_size or type(module.num_layers) is not int or type(module.bias) is not bool:
                return None
            if type(module.bidirectional) is not bool or type(module.batch_first) is not bool:
                return None
            if type(module.training) is not bool or not isinstance(module.dropout, (float, int)):
                return None
            # As the library finds them: a subclass may have properties over them.
            parameters, names, weights = module._parameters, module._flat_weights_names, module._flat_weights
            if type(names) is not list or type(weights) is not list or len(<list>names) != len(<list>weights):
                return None
            for name, weight in zip(<list>names, <list>weights):
                if name in state or parameters[name] is not weight:
                    return None
                if own is not self.kind and hasattr(own, name):  # a property, say, over the parameter
                    return None
        except (AttributeError, KeyError):  # something is missing
            return None
        return weights
