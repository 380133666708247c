"""Memory of batches: used again, but never while anybody looks at it."""

from patho_trainer.data import buffers


def test_memory_comes_back_when_the_tensor_is_dropped():
    pool = buffers.Buffers((2, 8, 8, 3))
    first = pool.take()
    place = first.data_ptr()
    del first
    assert pool.take().data_ptr() == place


def test_a_view_of_any_kind_holds_the_memory():
    pool = buffers.Buffers((2, 8, 8, 3))
    first = pool.take()
    place, row = first.data_ptr(), first[1].numpy()
    del first
    assert pool.take().data_ptr() != place
    del row
    assert pool.take().data_ptr() == place
